/* What was sampled comes back as it was, in the forms in which clients tell it. */
#include "../requests.h"
#include "../vocab_file.h"
#include "../../src/base/rng.h"
#include "../../src/server/call_form.h"
#include "../../src/server/recall.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "../store_folder.h"

enum { MOST_CALLS = 3, MOST_TURNS = 4 };

static ds4_vocab *vocab;
static uint64_t rng = 1;

static uint32_t dice(uint32_t sides) { return (uint32_t)(rng_next(&rng) >> 33) % sides; }

static Recall *make(size_t entries, size_t bytes)
{
    ds4_err err;
    Recall *r = recall_new(entries, bytes, &err);
    if (!r)
        fail_msg("%s", err.msg);
    return r;
}

/* ---- what the model says ----------------------------------------------------------------- */

/* A call's arguments: the same values, spelled in more than one way. */
typedef struct {
    char text[24];
    int number;
} Values;

typedef struct {
    char id[40];
    const char *name;
    Values v;
} SaidCall;

typedef struct {
    char reasoning[64], content[64];
    SaidCall call[MOST_CALLS];
    size_t n_calls;
    char handle[RECALL_HANDLE];
    Tokens sampled;
    char next[24]; /* what the user says then, where no tool was called */
} SaidAnswer;

typedef struct {
    const Dialect *dialect;
    bool thinking;
    SaidAnswer said[MOST_TURNS];
    size_t n;
} Talk;

/* How a client tells an answer. */
enum { REORDERED = 1, TRIMMED = 2, NO_REASONING = 4, NO_HANDLE = 8, OTHER_IDS = 16, N_HOW = 32 };

static void random_text(char *out, size_t cap)
{
    static const char *const pieces[] = { "hello",   " world", "\n\n", " the",  "é",  "中",
                                          "</",      "  ",     "aaaa", "\"q\"", "\\", "<｜User｜>",
                                          "{\"a\":", ".",      "\n",   "or" };
    size_t n = 0, want = dice(9);
    *out = 0;
    for (size_t i = 0; i < want; i++) {
        const char *p = pieces[dice(COUNT(pieces))];
        if (n + strlen(p) + 1 < cap)
            n += (size_t)snprintf(out + n, cap - n, "%s", p);
    }
}

/* Tokens of the text as a model may choose them: cut anywhere. */
static void sample(Tokens *out, Str s)
{
    ds4_err err;
    while (s.n) {
        size_t n = 1 + dice((uint32_t)MIN(s.n, 6));
        assert_true(bpe_encode(vocab, (Str){ s.p, n }, false, out, &err));
        s = (Str){ s.p + n, s.n - n };
    }
}

static void put_values(Bytes *b, const Values *v, bool reordered)
{
    Str text = str_of(v->text);
    bytes_str(b, reordered ? "{\"n\":{\"y\":[1, 2.0],\"x\":" : "{\"text\": ");
    if (reordered)
        bytes_printf(b, "%d.0},\"text\":", v->number);
    json_write_str(b, text);
    if (!reordered)
        bytes_printf(b, ", \"n\": {\"x\": %d, \"y\": [1.0, 2]}", v->number);
    bytes_byte(b, '}');
}

static void sample_call(Tokens *out, const SaidCall *c)
{
    Bytes b = { 0 };
    const Controls *k = vocab_controls(vocab);
    sample(out, STR("<"));
    tokens_put(out, k->dsml);
    bytes_printf(&b, "invoke name=\"%s\">\n", c->name);
    put_values(&b, &c->v, false);
    sample(out, bytes_view(&b));
    bytes_release(&b);
}

static void sample_answer(Talk *t, SaidAnswer *a)
{
    a->sampled = (Tokens){ 0 };
    if (t->thinking) {
        sample(&a->sampled, str_of(a->reasoning));
        tokens_put(&a->sampled, vocab_controls(vocab)->think_end);
    }
    sample(&a->sampled, str_of(a->content));
    for (size_t i = 0; i < a->n_calls; i++)
        sample_call(&a->sampled, &a->call[i]);
    if (!a->sampled.n || dice(2))
        tokens_put(&a->sampled, vocab_controls(vocab)->eos);
}

static void random_answer(Talk *t, Recall *r)
{
    SaidAnswer *a = &t->said[t->n++];
    *a = (SaidAnswer){ .n_calls = dice(MOST_CALLS + 1) };
    random_text(a->content, sizeof a->content);
    random_text(a->next, sizeof a->next);
    if (t->thinking)
        random_text(a->reasoning, sizeof a->reasoning);
    for (size_t i = 0; i < a->n_calls; i++) {
        SaidCall *c = &a->call[i];
        char buf[64];
        snprintf(c->id, sizeof c->id, "%s", new_id(buf, "call_"));
        c->name = dice(2) ? "f" : "g";
        random_text(c->v.text, sizeof c->v.text);
        c->v.number = (int)dice(1000) - 500;
    }
    recall_handle(r, a->handle);
    sample_answer(t, a);
}

static void talk_release(Talk *t)
{
    for (size_t i = 0; i < t->n; i++)
        tokens_release(&t->said[i].sampled);
}

static bool keep_for(Recall *r, const Turn *t, const SaidAnswer *a)
{
    ChatCall calls[MOST_CALLS];
    Bytes arguments[MOST_CALLS] = { 0 };
    for (size_t i = 0; i < a->n_calls; i++) {
        put_values(&arguments[i], &a->call[i].v, false);
        calls[i] =
            (ChatCall){ str_of(a->call[i].id), str_of(a->call[i].name), bytes_view(&arguments[i]) };
    }
    bool ok = recall_keep(r, t,
                          &(Sampled){ .handle = a->handle,
                                      .ids = a->sampled.id,
                                      .n_ids = a->sampled.n,
                                      .reasoning = str_of(a->reasoning),
                                      .content = str_of(a->content),
                                      .calls = calls,
                                      .n_calls = a->n_calls });
    for (size_t i = 0; i < a->n_calls; i++)
        bytes_release(&arguments[i]);
    return ok;
}

/* ---- how it is told ------------------------------------------------------------------------ */

static void put_content(Bytes *b, const char *s, int how)
{
    Str text = str_of(s);
    while (how & TRIMMED && text.n && strchr(" \n", text.p[0]))
        text = (Str){ text.p + 1, text.n - 1 };
    while (how & TRIMMED && text.n && strchr(" \n", text.p[text.n - 1]))
        text.n--;
    json_write_str(b, text);
}

static void put_id(Bytes *b, const char *id, int how)
{
    bytes_printf(b, "\"%s%s\"", how & OTHER_IDS ? "x" : "", id);
}

static void chat_answer(Bytes *b, const SaidAnswer *a, int how)
{
    bytes_str(b, ",{\"role\":\"assistant\",\"content\":");
    put_content(b, a->content, how);
    if (!(how & NO_REASONING)) {
        bytes_str(b, ",\"reasoning_content\":");
        put_content(b, a->reasoning, how);
    }
    for (size_t i = 0; i < a->n_calls; i++) {
        Bytes arguments = { 0 };
        put_values(&arguments, &a->call[i].v, how & REORDERED);
        bytes_str(b, i ? ",{\"id\":" : ",\"tool_calls\":[{\"id\":");
        put_id(b, a->call[i].id, how);
        bytes_printf(b, ",\"type\":\"function\",\"function\":{\"name\":\"%s\",\"arguments\":",
                     a->call[i].name);
        json_write_str(b, bytes_view(&arguments));
        bytes_str(b, i + 1 == a->n_calls ? "}}]" : "}}");
        bytes_release(&arguments);
    }
    bytes_byte(b, '}');
    for (size_t i = 0; i < a->n_calls; i++) {
        bytes_str(b, ",{\"role\":\"tool\",\"content\":\"done\",\"tool_call_id\":");
        put_id(b, a->call[i].id, how);
        bytes_byte(b, '}');
    }
    if (!a->n_calls) {
        bytes_str(b, ",{\"role\":\"user\",\"content\":");
        json_write_str(b, str_of(a->next));
        bytes_byte(b, '}');
    }
}

static void messages_answer(Bytes *b, const SaidAnswer *a, int how)
{
    bytes_str(b, ",{\"role\":\"assistant\",\"content\":[");
    if (!(how & NO_REASONING) || !(how & NO_HANDLE)) {
        bytes_str(b, "{\"type\":\"thinking\",\"thinking\":");
        put_content(b, how & NO_REASONING ? "" : a->reasoning, how);
        bytes_printf(b, ",\"signature\":\"%s\"},", how & NO_HANDLE ? "" : a->handle);
    }
    bytes_str(b, "{\"type\":\"text\",\"text\":");
    put_content(b, a->content, how);
    bytes_byte(b, '}');
    for (size_t i = 0; i < a->n_calls; i++) {
        bytes_str(b, ",{\"type\":\"tool_use\",\"id\":");
        put_id(b, a->call[i].id, how);
        bytes_printf(b, ",\"name\":\"%s\",\"input\":", a->call[i].name);
        put_values(b, &a->call[i].v, how & REORDERED);
        bytes_byte(b, '}');
    }
    bytes_str(b, "]},{\"role\":\"user\",\"content\":[");
    for (size_t i = 0; i < a->n_calls; i++) {
        bytes_printf(
            b, "%s{\"type\":\"tool_result\",\"content\":\"done\",\"tool_use_id\":", i ? "," : "");
        put_id(b, a->call[i].id, how);
        bytes_byte(b, '}');
    }
    if (!a->n_calls) {
        bytes_str(b, "{\"type\":\"text\",\"text\":");
        json_write_str(b, str_of(a->next));
        bytes_byte(b, '}');
    }
    bytes_str(b, "]}");
}

static void put_tools(Bytes *b, bool chat)
{
    const char *before = chat ? "{\"type\":\"function\",\"function\":" : "",
               *after = chat ? "}" : "", *schema = chat ? "parameters" : "input_schema";
    bytes_printf(b,
                 "\"tools\":[%s{\"name\":\"f\",\"%s\":{\"type\":\"object\"}}%s,"
                 "%s{\"name\":\"g\",\"%s\":{\"type\":\"object\"}}%s],",
                 before, schema, after, before, schema, after);
}

static void parse(const Dialect *d, const Bytes *body, Turn *t)
{
    ds4_err err;
    ApiError e;
    Json *o = json_read(bytes_view(body), &err);
    if (!o)
        fail_msg("%s: %.*s", err.msg, (int)body->n, body->p);
    turn_init(t, d == &dialect_chat ? API_CHAT : API_MESSAGES);
    if (!d->parse(t, o, NULL, &test_server, &e))
        fail_msg("%s: %.*s", e.message, (int)body->n, body->p);
}

/* The talk's next request; how[i]: of answer i. question: what the user began with. */
static void ask(const Talk *talk, const char *question, const int *how, Turn *t)
{
    bool chat = talk->dialect == &dialect_chat;
    Bytes b = { 0 };
    bytes_printf(&b, "{\"thinking\":{\"type\":\"%s\"},", talk->thinking ? "enabled" : "disabled");
    put_tools(&b, chat);
    if (chat)
        bytes_str(&b, "\"messages\":[{\"role\":\"system\",\"content\":\"sys\"},");
    else
        bytes_str(&b, "\"system\":\"sys\",\"messages\":[");
    bytes_printf(&b, "{\"role\":\"user\",\"content\":\"%s\"}", question);
    for (size_t i = 0; i < talk->n; i++)
        (chat ? chat_answer : messages_answer)(&b, &talk->said[i], how ? how[i] : 0);
    bytes_str(&b, "]}");
    parse(talk->dialect, &b, t);
    bytes_release(&b);
}

static void tokens_of(const Turn *t, Tokens *out)
{
    ChatOptions opt = { .think = t->think, .escape_results = true };
    ChatPrompt p;
    ds4_err err;
    if (!chat_render(&p, vocab, t->messages, t->n_messages, &opt, &err) ||
        !chat_tokens(&p, vocab, out, &err))
        fail_msg("%s", err.msg);
    chat_prompt_release(&p);
}

static RecallCount apply(Recall *r, Turn *t)
{
    RecallCount c;
    recall_apply(r, t, &c);
    return c;
}

static size_t found(const RecallCount *c) { return c->by_handle + c->by_call + c->by_text; }

/* ---- the law ------------------------------------------------------------------------------ */

/* One turn more: the prompt begins with the last one, what was sampled after it,
 * and the end of the sentence. Leaves the prompt in *last. */
static void one_more(Recall *r, Talk *talk, Tokens *last)
{
    int how[MOST_TURNS];
    Turn t;
    Tokens now = { 0 };
    for (size_t i = 0; i < MOST_TURNS; i++)
        how[i] = (int)dice(N_HOW);
    ask(talk, "one", how, &t);
    RecallCount c = apply(r, &t);
    assert_int_equal(found(&c), talk->n);
    assert_int_equal(c.edited, 0);
    tokens_of(&t, &now);
    if (talk->n) {
        const Tokens *ids = &talk->said[talk->n - 1].sampled;
        size_t n = ids->n - (ids->id[ids->n - 1] == vocab_controls(vocab)->eos);
        assert_true(now.n > last->n + n);
        assert_memory_equal(now.id, last->id, last->n * sizeof *now.id);
        assert_memory_equal(now.id + last->n, ids->id, n * sizeof *now.id);
        assert_int_equal(now.id[last->n + n], vocab_controls(vocab)->eos);
    }
    tokens_release(last);
    *last = now;
    if (talk->n < MOST_TURNS) {
        random_answer(talk, r);
        assert_true(keep_for(r, &t, &talk->said[talk->n - 1]));
    }
    turn_release(&t);
}

static void sampled_tokens_come_back_as_they_were(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    for (int i = 0; i < 400; i++) {
        Talk talk = { .dialect = i & 1 ? &dialect_chat : &dialect_messages, .thinking = i & 2 };
        Tokens last = { 0 };
        for (int k = 0; k <= MOST_TURNS; k++)
            one_more(r, &talk, &last);
        tokens_release(&last);
        talk_release(&talk);
    }
    recall_free(r);
}

/* ---- after a restart ------------------------------------------------------------------------ */

static size_t restored; /* by the last remake */

/* Another process on the same folder. */
static Recall *remake(StoreFolder *f, Recall *before, const ds4_vocab *v)
{
    ds4_err err;
    recall_free(before);
    if (f->store)
        store_folder_close(f);
    Recall *r = make(0, 0);
    if (!recall_persist(r, store_folder_open(f), v, 64 << 20, &restored, &err))
        fail_msg("%s", err.msg);
    return r;
}

static void sampled_tokens_come_back_after_a_restart(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    Recall *r = remake(&f, NULL, vocab);
    for (int i = 0; i < 40; i++) {
        Talk talk = { .dialect = i & 1 ? &dialect_chat : &dialect_messages, .thinking = i & 2 };
        Tokens last = { 0 };
        for (int k = 0; k <= MOST_TURNS; k++) {
            one_more(r, &talk, &last);
            r = remake(&f, r, vocab);
            assert_int_equal(restored, i * MOST_TURNS + MIN(k + 1, MOST_TURNS));
        }
        tokens_release(&last);
        talk_release(&talk);
    }
    recall_free(r);
    store_folder_close(&f);
    store_folder_remove(&f);
}

/* ---- one answer, in many forms ------------------------------------------------------------- */

/* A talk of one answer that r keeps. */
static void short_talk(Recall *r, Talk *talk, const Dialect *d, bool thinking)
{
    Turn t;
    SaidAnswer *a = &talk->said[0];
    *talk = (Talk){ .dialect = d, .thinking = thinking };
    ask(talk, "one", NULL, &t);
    talk->n = 1;
    *a = (SaidAnswer){ .reasoning = "because", .content = "hello", .n_calls = 2, .next = "two" };
    a->call[0] = (SaidCall){ "call_a", "f", { "x", 1 } };
    a->call[1] = (SaidCall){ "call_b", "g", { "y", 2 } };
    recall_handle(r, a->handle);
    sample_answer(talk, a);
    assert_true(keep_for(r, &t, a));
    turn_release(&t);
}

static RecallCount asked(Recall *r, const Talk *talk, const char *question, int how)
{
    Turn t;
    ask(talk, question, &how, &t);
    RecallCount c = apply(r, &t);
    for (size_t i = 0, n = 0; i < t.n_messages; i++)
        if (t.messages[i].role == CHAT_ASSISTANT && ++n == 1)
            assert_int_equal(t.messages[i].n_ids ? 1 : 0, found(&c));
    turn_release(&t);
    return c;
}

static void each_way_finds_it_where_the_others_do_not(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    Talk talk;
    short_talk(r, &talk, &dialect_messages, true);
    RecallCount c = asked(r, &talk, "another history", OTHER_IDS);
    assert_int_equal(c.by_handle, 1);
    c = asked(r, &talk, "another history", NO_HANDLE);
    assert_int_equal(c.by_call, 1);
    c = asked(r, &talk, "one", NO_HANDLE | OTHER_IDS);
    assert_int_equal(c.by_text, 1);
    c = asked(r, &talk, "another history", NO_HANDLE | OTHER_IDS);
    assert_int_equal(found(&c) + c.edited + c.forgotten, 0);
    talk_release(&talk);
    recall_free(r);
}

static void each_way_finds_it_after_a_restart(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    Talk talk;
    Recall *r = remake(&f, NULL, vocab);
    short_talk(r, &talk, &dialect_messages, true);
    r = remake(&f, r, vocab);
    RecallCount c = asked(r, &talk, "another history", OTHER_IDS);
    assert_int_equal(c.by_handle, 1);
    c = asked(r, &talk, "another history", NO_HANDLE);
    assert_int_equal(c.by_call, 1);
    c = asked(r, &talk, "one", NO_HANDLE | OTHER_IDS);
    assert_int_equal(c.by_text, 1);
    talk_release(&talk);
    recall_free(r);
    store_folder_close(&f);
    store_folder_remove(&f);
}

static void a_damaged_record_is_lost_alone(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    Talk talk[3];
    Recall *r = remake(&f, NULL, vocab);
    for (size_t i = 0; i < COUNT(talk); i++)
        short_talk(r, &talk[i], &dialect_messages, true);
    recall_free(r);
    store_folder_close(&f);
    store_folder_damage(&f, "answers.journal", -20);
    r = remake(&f, NULL, vocab);
    assert_int_equal(restored, 2);
    for (size_t i = 0; i < COUNT(talk); i++) {
        RecallCount c = asked(r, &talk[i], "another history", OTHER_IDS);
        assert_int_equal(c.by_handle, i < 2);
        assert_int_equal(c.forgotten, i == 2);
        talk_release(&talk[i]);
    }
    recall_free(r);
    store_folder_close(&f);
    store_folder_remove(&f);
}

/* Records are checked before they are believed: sizes, above all. */
static void a_record_that_is_none_is_harmless(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    Talk talk;
    Recall *r = remake(&f, NULL, vocab);
    short_talk(r, &talk, &dialect_messages, true);
    recall_free(r);
    store_folder_close(&f);
    store_folder_spoil(&f, "answers");
    r = remake(&f, NULL, vocab);
    assert_true(restored >= 1);
    /* Among so many of its name it need not be found. */
    RecallCount c = asked(r, &talk, "another history", OTHER_IDS);
    assert_int_equal(c.forgotten, 0);
    talk_release(&talk);
    recall_free(r);
    store_folder_close(&f);
    store_folder_remove(&f);
}

/* Its ids are no tokens of this one; and they are there again with the first. */
static void what_another_vocabulary_said_is_left_alone(void **state)
{
    (void)state;
    ds4_err err;
    StoreFolder f = { 0 };
    Talk talk;
    VocabFile file = { 0 };
    vf_small(&file);
    vf_token(&file, STR("another"), NORMAL);
    ds4_vocab *other = vf_load(&file, NULL, &err);
    assert_non_null(other);
    vf_release(&file);
    Recall *r = remake(&f, NULL, vocab);
    short_talk(r, &talk, &dialect_messages, true);
    r = remake(&f, r, other);
    assert_int_equal(restored, 0);
    RecallCount c = asked(r, &talk, "one", 0);
    assert_int_equal(found(&c), 0);
    r = remake(&f, r, vocab);
    assert_int_equal(restored, 1);
    c = asked(r, &talk, "one", 0);
    assert_int_equal(c.by_handle, 1);
    talk_release(&talk);
    vocab_free(other);
    recall_free(r);
    store_folder_close(&f);
    store_folder_remove(&f);
}

static void what_was_edited_is_rendered_anew(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    for (int i = 0; i < 6; i++) {
        Talk talk;
        short_talk(r, &talk, i & 1 ? &dialect_chat : &dialect_messages, true);
        SaidAnswer *a = &talk.said[0];
        RecallCount c = asked(r, &talk, "one", 0);
        assert_int_equal(found(&c), 1);
        switch (i) {
        case 0: a->content[0] = 'j'; break;
        case 1: a->call[1].v.number = 3; break;
        case 2: a->call[0].name = "g"; break;
        case 3: a->n_calls = 1; break;
        case 4: a->reasoning[0] = 'B'; break;
        case 5: a->call[1].v.text[0] = 'Y'; break;
        }
        c = asked(r, &talk, "one", 0);
        assert_int_equal(found(&c), 0);
        assert_int_equal(c.edited, 1);
        talk_release(&talk);
    }
    recall_free(r);
}

static void calls_of_two_answers_are_not_taken_for_one(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    Talk one, two;
    short_talk(r, &one, &dialect_chat, false);
    short_talk(r, &two, &dialect_chat, false);
    /* The second answer took the ids over; of the first one's a third is left. */
    snprintf(one.said[0].call[0].id, sizeof one.said[0].call[0].id, "call_c");
    RecallCount c = asked(r, &one, "another history", 0);
    assert_int_equal(found(&c), 0);
    assert_int_equal(c.edited, 1);
    talk_release(&one);
    talk_release(&two);
    recall_free(r);
}

static void reasoning_that_is_shown_chooses_between_equal_texts(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    Talk one, two;
    Turn t;
    short_talk(r, &one, &dialect_chat, true);
    ask(&one, "one", NULL, &t);
    t.n_messages -= 3; /* the question alone */
    two = one;
    snprintf(two.said[0].reasoning, sizeof two.said[0].reasoning, "otherwise");
    snprintf(two.said[0].call[0].id, sizeof two.said[0].call[0].id, "call_d");
    sample_answer(&two, &two.said[0]);
    assert_true(keep_for(r, &t, &two.said[0]));
    turn_release(&t);
    ask(&one, "one", &(int){ OTHER_IDS }, &t);
    RecallCount c = apply(r, &t);
    assert_int_equal(c.by_text, 1);
    const ChatMessage *m = &t.messages[t.n_messages - 3];
    assert_int_equal(m->n_ids, one.said[0].sampled.n);
    assert_memory_equal(m->ids, one.said[0].sampled.id, m->n_ids * sizeof *m->ids);
    turn_release(&t);
    talk_release(&one);
    talk_release(&two);
    recall_free(r);
}

/* An answer that ended within its thoughts has no </think> to tell them by. */
static void thoughts_that_were_cut_off_and_hidden_are_thoughts(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    Talk talk = { .dialect = &dialect_messages, .thinking = true };
    Turn t;
    Tokens before = { 0 }, now = { 0 };
    SaidAnswer *a = &talk.said[0];
    ask(&talk, "one", NULL, &t);
    tokens_of(&t, &before);
    *a = (SaidAnswer){ .reasoning = "hello world", .next = "go on" };
    recall_handle(r, a->handle);
    sample(&a->sampled, str_of(a->reasoning));
    assert_true(keep_for(r, &t, a));
    turn_release(&t);
    talk.n = 1;
    ask(&talk, "one", &(int){ NO_REASONING }, &t);
    RecallCount c = apply(r, &t);
    assert_int_equal(c.by_handle, 1);
    tokens_of(&t, &now);
    assert_memory_equal(now.id, before.id, before.n * sizeof *now.id);
    assert_memory_equal(now.id + before.n, a->sampled.id, a->sampled.n * sizeof *now.id);
    assert_int_equal(now.id[before.n + a->sampled.n], vocab_controls(vocab)->think_end);
    turn_release(&t);
    tokens_release(&before);
    tokens_release(&now);
    talk_release(&talk);
    recall_free(r);
}

static void bytes_that_json_cannot_hold_make_no_difference(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    Talk talk = { .dialect = &dialect_chat };
    Turn t;
    ask(&talk, "one", NULL, &t);
    int32_t id = 5;
    assert_true(recall_keep(r, &t,
                            &(Sampled){ .ids = &id,
                                        .n_ids = 1,
                                        .content = STR(" a\xff\xe4\xb8"
                                                       "b\0c\n") }));
    turn_release(&t);
    talk.n = 1;
    talk.said[0] = (SaidAnswer){ .content = "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                                            "bc" };
    RecallCount c = asked(r, &talk, "one", 0);
    assert_int_equal(c.by_text, 1);
    recall_free(r);
}

static void an_answer_that_goes_on_from_the_clients_is_not_kept(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    static const char body[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"assistant\", "
        "\"content\": \"I say\"}]}";
    Bytes b = { 0 };
    Turn t;
    int32_t id = 5;
    bytes_str(&b, body);
    parse(&dialect_messages, &b, &t);
    assert_false(recall_keep(r, &t, &(Sampled){ .ids = &id, .n_ids = 1, .content = STR("x") }));
    t.messages[1].unfinished = false;
    assert_true(recall_keep(r, &t, &(Sampled){ .ids = &id, .n_ids = 1, .content = STR("x") }));
    assert_false(recall_keep(r, &t, &(Sampled){ .content = STR("x") }));
    turn_release(&t);
    bytes_release(&b);
    recall_free(r);
}

/* ---- handles --------------------------------------------------------------------------------- */

static void handles_are_opaque_and_never_the_same(void **state)
{
    (void)state;
    Recall *r = make(0, 0);
    char one[RECALL_HANDLE], other[RECALL_HANDLE];
    recall_handle(r, one);
    recall_handle(r, other);
    assert_int_equal(strlen(one), 44);
    for (int i = 0; i < 44; i++)
        assert_true(isalnum((unsigned char)one[i]) || one[i] == '-' || one[i] == '_');
    assert_string_not_equal(one, other);
    recall_free(r);
}

static void other_handles_than_ours_are_ignored(void **state)
{
    (void)state;
    Recall *r = make(0, 0), *other = make(0, 0);
    Talk talk;
    short_talk(r, &talk, &dialect_messages, true);
    char ours[RECALL_HANDLE];
    char *handle = talk.said[0].handle;
    memcpy(ours, handle, sizeof ours);
    for (int i = 0; i < 44; i++) {
        handle[i] = handle[i] == 'A' ? 'B' : 'A';
        RecallCount c = asked(r, &talk, "another history", OTHER_IDS);
        assert_int_equal(found(&c) + c.edited + c.forgotten, 0);
        memcpy(handle, ours, sizeof ours);
    }
    static const char *const strange[] = { "", "x", "EsgCCkYIBxgCKkC",
                                           "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                           "AAAA AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==" };
    for (size_t i = 0; i < COUNT(strange); i++) {
        snprintf(handle, RECALL_HANDLE, "%s", strange[i]);
        RecallCount c = asked(r, &talk, "another history", OTHER_IDS);
        assert_int_equal(found(&c) + c.edited + c.forgotten, 0);
    }
    recall_handle(other, handle);
    RecallCount c = asked(r, &talk, "another history", OTHER_IDS);
    assert_int_equal(found(&c) + c.edited + c.forgotten, 0);
    memcpy(handle, ours, sizeof ours);
    c = asked(r, &talk, "another history", OTHER_IDS);
    assert_int_equal(c.by_handle, 1);
    talk_release(&talk);
    recall_free(r);
    recall_free(other);
}

/* ---- bounds ------------------------------------------------------------------------------------ */

/* An answer with this text to the question of *t. */
static bool keep_text(Recall *r, const Turn *t, const char *text, size_t n_ids)
{
    int32_t *ids = calloc(n_ids, sizeof *ids);
    bool ok = recall_keep(r, t, &(Sampled){ .ids = ids, .n_ids = n_ids, .content = str_of(text) });
    free(ids);
    return ok;
}

static bool is_known(Recall *r, const char *text)
{
    Talk talk = { .dialect = &dialect_chat, .n = 1 };
    snprintf(talk.said[0].content, sizeof talk.said[0].content, "%s", text);
    RecallCount c = asked(r, &talk, "one", 0);
    return found(&c) == 1;
}

static void what_was_not_used_for_longest_is_forgotten(void **state)
{
    (void)state;
    Recall *by_entries = make(3, 0), *by_bytes = make(0, 16000);
    Talk talk = { .dialect = &dialect_chat };
    Turn t;
    ask(&talk, "one", NULL, &t);
    for (int i = 0; i < 2; i++) {
        Recall *r = i ? by_bytes : by_entries;
        assert_true(keep_text(r, &t, "a", 1000)); /* 4000 bytes and a little */
        assert_true(keep_text(r, &t, "b", 1000));
        assert_true(keep_text(r, &t, "c", 1000));
        assert_true(is_known(r, "a"));
        assert_true(keep_text(r, &t, "d", 1000));
        assert_false(is_known(r, "b"));
        assert_true(is_known(r, "a"));
        assert_true(is_known(r, "c"));
        assert_true(is_known(r, "d"));
    }
    Talk first;
    short_talk(by_entries, &first, &dialect_messages, true);
    assert_true(keep_text(by_entries, &t, "f", 1));
    assert_true(keep_text(by_entries, &t, "g", 1));
    RecallCount c = asked(by_entries, &first, "one", 0);
    assert_int_equal(found(&c) + c.edited, 0);
    assert_int_equal(c.forgotten, 1);
    talk_release(&first);
    assert_false(keep_text(by_bytes, &t, "e", 5000));
    assert_true(is_known(by_bytes, "a"));
    turn_release(&t);
    recall_free(by_entries);
    recall_free(by_bytes);
}

/* ---- forms of calls ------------------------------------------------------------------------------ */

static bool same_calls(const char *name, const char *one, const char *other_name, const char *other)
{
    Bytes a = { 0 }, b = { 0 };
    call_form(&a, &(ChatCall){ .id = STR("1"), .name = str_of(name), .arguments = str_of(one) });
    call_form(&b, &(ChatCall){ .name = str_of(other_name), .arguments = str_of(other) });
    assert_false(a.failed || b.failed);
    bool same = str_eq(bytes_view(&a), bytes_view(&b));
    bytes_release(&a);
    bytes_release(&b);
    return same;
}

static void calls_are_compared_by_what_they_say(void **state)
{
    (void)state;
    static const char *const equal[][2] = {
        { "{\"a\": 1, \"b\": [true, null]}", "{\"b\":[true,null],\"a\":1.0}" },
        { "{\"a\": {\"x\": 1e2, \"y\": -0.0}}", "{\"a\":{\"y\":0,\"x\":100}}" },
        { "{\"a\": 12345678901234567890123}", "{\"a\":1.2345678901234568e22}" },
        { "{\"a\": 9007199254740993}", "{\"a\":9007199254740992}" },
        { "{\"a\": \"\\u00e9\"}", "{\"a\":\"é\"}" },
        { "", " {} " },
        { "no json", "no json" },
    };
    static const char *const different[][2] = {
        { "{\"a\": 1}", "{\"a\":\"1\"}" },
        { "{\"a\": 1}", "{\"a\":1.5}" },
        { "{\"a\": [1, 2]}", "{\"a\":[2,1]}" },
        { "{\"a\": null}", "{}" },
        { "{\"a\": false}", "{\"a\":0}" },
        { "{\"a\": {}}", "{\"a\":[]}" },
        { "no json", "no  json" },
        { "{\"a\": 1}", "{\"A\":1}" },
        { "{\"a\": \"b\"}", "{\"a\":\"b \"}" },
        { "x", "\"x\"" },
    };
    for (size_t i = 0; i < COUNT(equal); i++)
        assert_true(same_calls("f", equal[i][0], "f", equal[i][1]));
    for (size_t i = 0; i < COUNT(different); i++)
        assert_false(same_calls("f", different[i][0], "f", different[i][1]));
    assert_false(same_calls("f", "{}", "g", "{}"));
}

/* ---- threads ------------------------------------------------------------------------------------- */

static void *keep_and_ask(void *recall)
{
    Recall *r = recall;
    Talk talk = { .dialect = &dialect_chat };
    Turn t;
    ask(&talk, "one", NULL, &t);
    for (int i = 0; i < 200; i++) {
        char text[8], handle[RECALL_HANDLE];
        snprintf(text, sizeof text, "%d", i % 20);
        recall_handle(r, handle);
        keep_text(r, &t, text, 100);
        is_known(r, text);
    }
    turn_release(&t);
    return NULL;
}

static void threads_may_share_it(void **state)
{
    (void)state;
    Recall *r = make(10, 0);
    pthread_t thread[4];
    for (size_t i = 0; i < COUNT(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, keep_and_ask, r), 0);
    for (size_t i = 0; i < COUNT(thread); i++)
        pthread_join(thread[i], NULL);
    recall_free(r);
}

static int load_vocab(void **state)
{
    (void)state;
    ds4_err err;
    vocab = vf_small_vocab(&err);
    return vocab ? 0 : -1;
}

static int free_vocab(void **state)
{
    (void)state;
    vocab_free(vocab);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampled_tokens_come_back_as_they_were),
        cmocka_unit_test(sampled_tokens_come_back_after_a_restart),
        cmocka_unit_test(each_way_finds_it_where_the_others_do_not),
        cmocka_unit_test(each_way_finds_it_after_a_restart),
        cmocka_unit_test(a_damaged_record_is_lost_alone),
        cmocka_unit_test(a_record_that_is_none_is_harmless),
        cmocka_unit_test(what_another_vocabulary_said_is_left_alone),
        cmocka_unit_test(what_was_edited_is_rendered_anew),
        cmocka_unit_test(calls_of_two_answers_are_not_taken_for_one),
        cmocka_unit_test(reasoning_that_is_shown_chooses_between_equal_texts),
        cmocka_unit_test(thoughts_that_were_cut_off_and_hidden_are_thoughts),
        cmocka_unit_test(bytes_that_json_cannot_hold_make_no_difference),
        cmocka_unit_test(an_answer_that_goes_on_from_the_clients_is_not_kept),
        cmocka_unit_test(handles_are_opaque_and_never_the_same),
        cmocka_unit_test(other_handles_than_ours_are_ignored),
        cmocka_unit_test(what_was_not_used_for_longest_is_forgotten),
        cmocka_unit_test(calls_are_compared_by_what_they_say),
        cmocka_unit_test(threads_may_share_it),
    };
    return cmocka_run_group_tests(tests, load_vocab, free_vocab);
}
