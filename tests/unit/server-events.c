/* An answer's events wait for a client in the order they came, and never without bound. */
#include "../../src/server/events.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static bool put_text(EventQueue *q, const char *text, const TokenLogprob *logprobs, size_t n)
{
    const Event e = { .kind = EV_TEXT,
                      .bytes = str_of(text),
                      .logprobs = logprobs,
                      .n_logprobs = logprobs ? 1 : 0,
                      .logprob_width = n };
    return events_put(q, &e);
}

/* The texts of all that waits, one after the other. */
static size_t take_all(EventQueue *q, Bytes *text)
{
    size_t n = 0;
    for (EventNode *node; (node = events_take(q)) != NULL; n++) {
        bytes_put(text, node->event.bytes.p, node->event.bytes.n);
        event_node_free(node);
    }
    return n;
}

static void texts_that_wait_become_few_and_keep_their_order(void **state)
{
    EventQueue q;
    Bytes got = { 0 };
    (void)state;
    events_init(&q, 1 << 20);
    for (int i = 0; i < 1000; i++)
        assert_true(put_text(&q, (char[]){ (char)('a' + i % 26), 0 }, NULL, 0));
    assert_in_range(take_all(&q, &got), 2, 100);
    assert_int_equal(got.n, 1000);
    for (size_t i = 0; i < got.n; i++)
        assert_int_equal(got.p[i], 'a' + i % 26);
    assert_int_equal(q.bytes, 0);
    assert_int_equal(q.n, 0);
    bytes_release(&got);
    events_release(&q);
}

/* A prompt is read for minutes that nobody hears of. */
static void progress_that_nobody_takes_is_the_last_one(void **state)
{
    EventQueue q;
    EventNode *n;
    int last = 0;
    (void)state;
    events_init(&q, 1 << 18);
    for (int i = 1; i <= 100000; i++)
        assert_true(events_put(
            &q, &(Event){ .kind = EV_PROGRESS, .done = i, .usage = { .prompt_ms = 2 * i } }));
    assert_true(put_text(&q, "x", NULL, 0));
    for (int seen = 0; (n = events_take(&q))->event.kind == EV_PROGRESS; seen++) {
        last = n->event.done;
        assert_true(n->event.usage.prompt_ms == 2 * last);
        assert_true(seen < 100);
        event_node_free(n);
    }
    assert_int_equal(last, 100000);
    assert_int_equal(n->event.kind, EV_TEXT);
    event_node_free(n);
    assert_int_equal(q.bytes, 0);
    events_release(&q);
}

static void what_an_event_has_is_the_copys_own(void **state)
{
    char name[] = "look", id[] = "call_1", handle[] = "h-1", stop[] = "END", text[] = "{",
         token[] = "t";
    TokenLogprob row[2] = { { { token, 1 }, -1 }, { { NULL, 0 }, -2 } };
    const Event e = { .kind = EV_TOOL_ARGS,
                      .bytes = { text, 1 },
                      .name = { name, 4 },
                      .stop_sequence = { stop, 3 },
                      .call_id = id,
                      .handle = handle,
                      .logprobs = row,
                      .n_logprobs = 1,
                      .logprob_width = 2 };
    EventQueue q;
    (void)state;
    events_init(&q, 1 << 20);
    assert_true(events_put(&q, &e));
    assert_in_range(q.bytes, 1, sizeof(EventNode) + 200);
    name[0] = id[0] = handle[0] = stop[0] = text[0] = token[0] = '?';
    row[0].token.n = 0;
    EventNode *n = events_take(&q);
    assert_true(str_eq(n->event.bytes, STR("{")) && str_eq(n->event.name, STR("look")));
    assert_true(str_eq(n->event.stop_sequence, STR("END")));
    assert_string_equal(n->event.call_id, "call_1");
    assert_string_equal(n->event.handle, "h-1");
    assert_true(str_eq(n->event.logprobs[0].token, STR("t")));
    assert_null(n->event.logprobs[1].token.p);
    event_node_free(n);
    events_release(&q);
}

static void what_comes_with_a_text_counts(void **state)
{
    enum { WIDTH = 21, MOST = 1 << 20 };
    TokenLogprob row[WIDTH];
    EventQueue q;
    size_t n = 0;
    (void)state;
    for (int i = 0; i < WIDTH; i++)
        row[i] = (TokenLogprob){ STR("token"), -1 };
    events_init(&q, MOST);
    while (n <= MOST && put_text(&q, "x", row, WIDTH))
        n++;
    assert_in_range(n, 100, MOST / sizeof row);
    events_release(&q);
}

static void ends_are_taken_however_much_waits(void **state)
{
    EventQueue q;
    Bytes got = { 0 };
    (void)state;
    events_init(&q, 4096);
    while (put_text(&q, "some text", NULL, 0))
        ;
    assert_true(events_put(&q, &(Event){ .kind = EV_FINISH }));
    assert_true(take_all(&q, &got) > 1);
    assert_int_equal(q.bytes, 0);
    assert_true(put_text(&q, "room again", NULL, 0));
    bytes_release(&got);
    events_release(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_wait_become_few_and_keep_their_order),
        cmocka_unit_test(progress_that_nobody_takes_is_the_last_one),
        cmocka_unit_test(what_an_event_has_is_the_copys_own),
        cmocka_unit_test(what_comes_with_a_text_counts),
        cmocka_unit_test(ends_are_taken_however_much_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
