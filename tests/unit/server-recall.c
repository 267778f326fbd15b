/* What was sampled comes back as it was, in the forms in which clients tell it. */
#include "../talks.h"
#include <pthread.h>

/* ---- the law ------------------------------------------------------------------------ */

static void sampled_tokens_come_back_as_they_were(void **state)
{
    (void)state;
    Recall *r = new_recall(0, 0);
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

/* ---- one answer, in many forms ------------------------------------------------------ */

static void each_way_finds_it_where_the_others_do_not(void **state)
{
    (void)state;
    Recall *r = new_recall(0, 0);
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

static void what_was_edited_is_rendered_anew(void **state)
{
    (void)state;
    Recall *r = new_recall(0, 0);
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
    Recall *r = new_recall(0, 0);
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
    Recall *r = new_recall(0, 0);
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
    Recall *r = new_recall(0, 0);
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
    Recall *r = new_recall(0, 0);
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
    Recall *r = new_recall(0, 0);
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

/* ---- handles ------------------------------------------------------------------------ */

static void handles_are_opaque_and_never_the_same(void **state)
{
    (void)state;
    Recall *r = new_recall(0, 0);
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
    Recall *r = new_recall(0, 0), *other = new_recall(0, 0);
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

/* ---- bounds ------------------------------------------------------------------------- */

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
    Recall *by_entries = new_recall(3, 0), *by_bytes = new_recall(0, 16000);
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

/* ---- threads ------------------------------------------------------------------------ */

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
    Recall *r = new_recall(10, 0);
    pthread_t thread[4];
    for (size_t i = 0; i < COUNT(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, keep_and_ask, r), 0);
    for (size_t i = 0; i < COUNT(thread); i++)
        pthread_join(thread[i], NULL);
    recall_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampled_tokens_come_back_as_they_were),
        cmocka_unit_test(each_way_finds_it_where_the_others_do_not),
        cmocka_unit_test(what_was_edited_is_rendered_anew),
        cmocka_unit_test(calls_of_two_answers_are_not_taken_for_one),
        cmocka_unit_test(reasoning_that_is_shown_chooses_between_equal_texts),
        cmocka_unit_test(thoughts_that_were_cut_off_and_hidden_are_thoughts),
        cmocka_unit_test(bytes_that_json_cannot_hold_make_no_difference),
        cmocka_unit_test(an_answer_that_goes_on_from_the_clients_is_not_kept),
        cmocka_unit_test(handles_are_opaque_and_never_the_same),
        cmocka_unit_test(other_handles_than_ours_are_ignored),
        cmocka_unit_test(what_was_not_used_for_longest_is_forgotten),
        cmocka_unit_test(threads_may_share_it),
    };
    return cmocka_run_group_tests(tests, load_vocab, free_vocab);
}
