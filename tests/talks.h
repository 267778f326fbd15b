/* talks.h - conversations made up by chance for tests of the recall: what the model says in
 * them, and the forms in which clients tell it. */
#ifndef TALKS_H
#define TALKS_H
#include "requests.h"
#include "vocab_file.h"
#include "../src/base/rng.h"
#include "../src/server/recall.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { MOST_CALLS = 3, MOST_TURNS = 4 };

static ds4_vocab *vocab;
static uint64_t rng = 1;

static inline uint32_t dice(uint32_t sides) { return (uint32_t)(rng_next(&rng) >> 33) % sides; }

static inline Recall *new_recall(size_t entries, size_t bytes)
{
    ds4_err err;
    Recall *r = recall_new(entries, bytes, &err);
    if (!r)
        fail_msg("%s", err.msg);
    return r;
}

static inline int load_vocab(void **state)
{
    (void)state;
    ds4_err err;
    vocab = vf_small_vocab(&err);
    return vocab ? 0 : -1;
}

static inline int free_vocab(void **state)
{
    (void)state;
    vocab_free(vocab);
    return 0;
}

/* ---- what the model says ------------------------------------------------------------ */

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

static inline void random_text(char *out, size_t cap)
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
static inline void sample(Tokens *out, Str s)
{
    ds4_err err;
    while (s.n) {
        size_t n = 1 + dice((uint32_t)MIN(s.n, 6));
        assert_true(bpe_encode(vocab, (Str){ s.p, n }, false, out, &err));
        s = (Str){ s.p + n, s.n - n };
    }
}

static inline void put_values(Bytes *b, const Values *v, bool reordered)
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

static inline void sample_call(Tokens *out, const SaidCall *c)
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

static inline void sample_answer(Talk *t, SaidAnswer *a)
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

static inline void random_answer(Talk *t, Recall *r)
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

static inline void talk_release(Talk *t)
{
    for (size_t i = 0; i < t->n; i++)
        tokens_release(&t->said[i].sampled);
}

static inline bool keep_for(Recall *r, const Turn *t, const SaidAnswer *a)
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

/* ---- how it is told ----------------------------------------------------------------- */

static inline void put_content(Bytes *b, const char *s, int how)
{
    Str text = str_of(s);
    while (how & TRIMMED && text.n && strchr(" \n", text.p[0]))
        text = (Str){ text.p + 1, text.n - 1 };
    while (how & TRIMMED && text.n && strchr(" \n", text.p[text.n - 1]))
        text.n--;
    json_write_str(b, text);
}

static inline void put_id(Bytes *b, const char *id, int how)
{
    bytes_printf(b, "\"%s%s\"", how & OTHER_IDS ? "x" : "", id);
}

static inline void chat_answer(Bytes *b, const SaidAnswer *a, int how)
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

static inline void messages_answer(Bytes *b, const SaidAnswer *a, int how)
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

static inline void put_tools(Bytes *b, bool chat)
{
    const char *before = chat ? "{\"type\":\"function\",\"function\":" : "",
               *after = chat ? "}" : "", *schema = chat ? "parameters" : "input_schema";
    bytes_printf(b,
                 "\"tools\":[%s{\"name\":\"f\",\"%s\":{\"type\":\"object\"}}%s,"
                 "%s{\"name\":\"g\",\"%s\":{\"type\":\"object\"}}%s],",
                 before, schema, after, before, schema, after);
}

static inline void parse(const Dialect *d, const Bytes *body, Turn *t)
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
static inline void ask(const Talk *talk, const char *question, const int *how, Turn *t)
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

static inline void tokens_of(const Turn *t, Tokens *out)
{
    ChatOptions opt = { .think = t->think, .escape_results = true };
    ChatPrompt p;
    ds4_err err;
    if (!chat_render(&p, vocab, t->messages, t->n_messages, &opt, &err) ||
        !chat_tokens(&p, vocab, out, &err))
        fail_msg("%s", err.msg);
    chat_prompt_release(&p);
}

static inline RecallCount apply(Recall *r, Turn *t)
{
    RecallCount c;
    recall_apply(r, t, &c);
    return c;
}

static inline size_t found(const RecallCount *c) { return c->by_handle + c->by_call + c->by_text; }

/* ---- talks -------------------------------------------------------------------------- */

/* One turn more: the prompt begins with the last one, what was sampled after it,
 * and the end of the sentence. Leaves the prompt in *last. */
static inline void one_more(Recall *r, Talk *talk, Tokens *last)
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

/* A talk of one answer that r keeps. */
static inline void short_talk(Recall *r, Talk *talk, const Dialect *d, bool thinking)
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

static inline RecallCount asked(Recall *r, const Talk *talk, const char *question, int how)
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

#endif
