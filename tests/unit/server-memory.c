/* Whatever memory is refused while a request is read or an answer is told: what is there of
 * it can be asked for, and what is not there is known to be missing. */
#include "../failing_memory.h"
#include "../../src/server/http_parse.c"
#define keep keep_piece
#include "../../src/server/collect.c"
#include "../../src/server/dialect.h"
#include "../../src/server/events.c"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static enum HttpStep read_request(HttpParser *h, Str text)
{
    enum HttpStep step = HTTP_MORE;
    size_t used = 0;
    for (size_t at = 0; at < text.n && step != HTTP_DONE && step != HTTP_BAD; at += used)
        step = http_parse(h, text.p + at, MIN((size_t)7, text.n - at), &used);
    return step;
}

/* Of a request with a value of so many bytes. */
static void read_without_memory(int bytes)
{
    static const char *const names[] = { "host", "x-thing", "content-length" };
    char text[400];
    const int n_text = snprintf(text, sizeof text,
                                "POST /v1/messages?beta=true HTTP/1.1\r\nHost: localhost\r\n"
                                "X-Thing: %0*d\r\nContent-Length: 70\r\n\r\n%070d",
                                bytes, 1, 7);
    bool refused = true;
    for (long n = 1; refused; n++) {
        HttpParser h = { .limits = { 1000, 1000, 1000, COUNT(names) } };
        const char *name, *value;
        memory_refuse(n);
        enum HttpStep step = read_request(&h, (Str){ text, (size_t)n_text });
        refused = memory_was_refused();
        assert_int_equal(step, refused ? HTTP_BAD : HTTP_DONE);
        assert_int_equal(h.status, refused ? 503 : 0);
        assert_true(!*http_parse_method(&h) || !strcmp(http_parse_method(&h), "POST"));
        assert_true(!*http_parse_path(&h) || !strcmp(http_parse_path(&h), "/v1/messages"));
        for (size_t i = 0; http_parse_at(&h, i, &name, &value); i++)
            assert_string_equal(name, names[i]);
        assert_null(http_parse_field(&h, "authorization"));
        http_parse_release(&h);
    }
}

static void a_request_without_memory_is_refused_and_can_be_asked_for_what_it_has(void **state)
{
    (void)state;
    for (int bytes = 1; bytes < 80; bytes++)
        read_without_memory(bytes);
}

/* Texts that are joined after the first 64, and one with a name and log probabilities. */
static size_t tell_until_refused(EventQueue *q)
{
    const TokenLogprob p[2] = { { .token = STR("ab") }, { .token = STR("cd") } };
    size_t n = 0;
    for (bool ok = true; ok && n < 100; n += ok) {
        Event e = { .kind = EV_TEXT, .bytes = { "0123456789", 1 + n % 9 } };
        if (n == 50)
            e = (Event){ .kind = EV_TEXT,
                         .bytes = STR("x"),
                         .call_id = "call",
                         .name = STR("name"),
                         .logprobs = p,
                         .n_logprobs = 1,
                         .logprob_width = 2 };
        ok = events_put(q, &e);
    }
    return n;
}

static void an_event_is_told_whole_or_known_to_be_lost(void **state)
{
    (void)state;
    bool refused = true;
    for (long n = 1; refused; n++) {
        EventQueue q;
        size_t bytes = 0, want = 0;
        events_init(&q, 1 << 20);
        memory_refuse(n);
        const size_t told = tell_until_refused(&q);
        refused = memory_was_refused();
        assert_true(told == 100 || refused);
        for (size_t i = 0; i < told; i++)
            want += i == 50 ? 1 : 1 + i % 9;
        for (EventNode *e; (e = events_take(&q)); event_node_free(e))
            bytes += e->event.bytes.n;
        assert_int_equal(bytes, want);
        assert_int_equal(q.bytes, 0);
        events_release(&q);
    }
}

/* ---- whole answers --------------------------------------------------------------------- */

static void tell_answer(const Dialect *d, Answer *a, bool calls)
{
    const TokenLogprob p[2] = { { STR("word"), -0.25f }, { STR("other"), -3 } };
    const Event begin = { .kind = EV_TOOL_BEGIN, .call_id = "call_1", .name = STR("read") };
    const Event argument = { .kind = EV_TOOL_ARGS, .bytes = STR("{\"path\": \"a/long/one.c\"}") };
    for (int i = 0; calls && i < 30; i++)
        d->event(a, &(Event){ .kind = EV_REASONING, .bytes = STR("I think. ") }, NULL);
    if (calls)
        d->event(a, &(Event){ .kind = EV_REASONING, .handle = "h_0123456789abcdef" }, NULL);
    for (int i = 0; i < 60; i++)
        d->event(a,
                 &(Event){ .kind = EV_TEXT,
                           .bytes = STR("word"),
                           .logprobs = p,
                           .n_logprobs = 1,
                           .logprob_width = 2 },
                 NULL);
    for (int i = 0; calls && i < 6; i++) {
        d->event(a, &begin, NULL);
        d->event(a, &argument, NULL);
        d->event(a, &(Event){ .kind = EV_TOOL_END }, NULL);
    }
    d->event(a, &(Event){ .kind = EV_FINISH, .finish = calls ? FINISH_TOOL_CALLS : FINISH_STOP },
             NULL);
}

/* How long the reply is; 0: it is known that there was no memory for it. Ids differ and are
 * as long as each other. */
static size_t reply_of(const Dialect *d, const Turn *t, bool calls)
{
    static const ServerInfo info = { .context = 1000, .max_output = 1000 };
    Bytes out = { 0 };
    Answer *a = d->answer_new(t, &info);
    if (a) {
        tell_answer(d, a, calls);
        d->reply(a, &out);
    }
    const size_t n = out.failed ? 0 : out.n;
    bytes_release(&out);
    d->answer_free(a);
    return n;
}

static void a_reply_is_whole_or_known_to_have_had_no_memory(void **state)
{
    static const struct {
        const Dialect *dialect;
        enum Api api;
        bool calls, logprobs;
    } all[] = { { &dialect_completions, API_COMPLETIONS, false, true },
                { &dialect_chat, API_CHAT, true, false },
                { &dialect_chat, API_CHAT, false, true },
                { &dialect_messages, API_MESSAGES, true, false },
                { &dialect_responses, API_RESPONSES, true, false } };
    (void)state;
    for (size_t i = 0; i < COUNT(all); i++) {
        Turn t;
        turn_init(&t, all[i].api);
        t.model = STR("model");
        t.logprobs = all[i].logprobs;
        t.top_logprobs = 1;
        memory_refuse(0);
        const size_t whole = reply_of(all[i].dialect, &t, all[i].calls);
        assert_true(whole > 500);
        bool refused = true;
        for (long n = 1; refused; n++) {
            memory_refuse(n);
            const size_t got = reply_of(all[i].dialect, &t, all[i].calls);
            refused = memory_was_refused();
            if (got != whole && (got || !refused))
                fail_msg("%s without request %ld: %zu bytes of %zu", all[i].dialect->name, n, got,
                         whole);
        }
        turn_release(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_without_memory_is_refused_and_can_be_asked_for_what_it_has),
        cmocka_unit_test(an_event_is_told_whole_or_known_to_be_lost),
        cmocka_unit_test(a_reply_is_whole_or_known_to_have_had_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
