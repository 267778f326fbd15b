/* What was sampled comes back after a restart, and records that are damaged or of
 * another vocabulary do no harm. */
#include "../talks.h"
#include "../store_folder.h"

static size_t restored; /* by the last remake */

/* Another process on the same folder. */
static Recall *remake(StoreFolder *f, Recall *before, const ds4_vocab *v)
{
    ds4_err err;
    recall_free(before);
    if (f->store)
        store_folder_close(f);
    Recall *r = new_recall(0, 0);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampled_tokens_come_back_after_a_restart),
        cmocka_unit_test(each_way_finds_it_after_a_restart),
        cmocka_unit_test(a_damaged_record_is_lost_alone),
        cmocka_unit_test(a_record_that_is_none_is_harmless),
        cmocka_unit_test(what_another_vocabulary_said_is_left_alone),
    };
    return cmocka_run_group_tests(tests, load_vocab, free_vocab);
}
