/* Responses that are kept: going on from them, pointing into them, and the store
 * by itself. */
#include "../responses.h"
#include "../store_folder.h"
#include <pthread.h>

/* ---- keeping ------------------------------------------------------------------------------- */

/* Answers `body` with reasoning, text and a call, and keeps the answer; its id
 * goes to id. */
static void answer(const ServerInfo *s, const char *body, const char *says, char id[64])
{
    Turn t;
    parse_at(s, body, &t);
    Answer *a = dialect_responses.answer_new(&t, s);
    const Event said[] = { thought("why", NULL),      thought("", "h"),       text(says),
                           call(NULL, "f", "call_1"), arguments("{\"a\":1}"), call_end,
                           finish(FINISH_TOOL_CALLS) };
    for (size_t i = 0; i < COUNT(said); i++)
        dialect_responses.event(a, &said[i], NULL);
    responses_done(a, s->responses);
    snprintf(id, 64, "%s", responses_id(a));
    dialect_responses.answer_free(a);
    turn_release(&t);
}

static ServerInfo with_store(size_t max_bytes)
{
    ServerInfo s = test_server;
    s.responses = responses_store_new(max_bytes);
    assert_non_null(s.responses);
    return s;
}

/* The two bodies give the same messages, with the same handles. */
static void same_messages(const ServerInfo *s, const char *one, const char *other)
{
    Turn a, b;
    parse_at(s, one, &a);
    parse_at(s, other, &b);
    assert_int_equal(a.n_messages, b.n_messages);
    for (size_t i = 0; i < a.n_messages; i++) {
        const ChatMessage *x = &a.messages[i], *y = &b.messages[i];
        assert_int_equal(x->role, y->role);
        assert_true(str_eq(x->content, y->content) && str_eq(x->reasoning, y->reasoning) &&
                    str_eq(a.handles[i], b.handles[i]) && str_eq(x->tool_call_id, y->tool_call_id));
        assert_int_equal(x->n_calls, y->n_calls);
        for (size_t k = 0; k < x->n_calls; k++)
            assert_true(str_eq(x->calls[k].id, y->calls[k].id) &&
                        str_eq(x->calls[k].name, y->calls[k].name) &&
                        str_eq(x->calls[k].arguments, y->calls[k].arguments));
    }
    turn_release(&a);
    turn_release(&b);
}

/* The items of what answer says. */
#define ANSWERED(text) \
    "{\"type\": \"reasoning\", \"content\": [{\"type\": \"reasoning_text\", \"text\": " \
    "\"why\"}], \"encrypted_content\": \"h\"}", \
        SAID(text), \
        "{\"type\": \"function_call\", \"call_id\": \"call_1\", \"name\": \"f\", " \
        "\"arguments\": \"{\\\"a\\\":1}\"}"

static const char *after(const char *id)
{
    Bytes b = { 0 };
    bytes_printf(&b, "\"previous_response_id\": \"%s\", ", id);
    const char *kept = arena_str(&bodies, bytes_view(&b));
    bytes_release(&b);
    return kept;
}

static void going_on_from_a_response_is_as_telling_it_all_again(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    char first[64], second[64];
    answer(&s, "{\"input\": \"q1\"}", "a1", first);
    answer(&s, BODY(after(first), OUTPUT("call_1", "r1"), SAYS("q2")), "a2", second);
    /* The first may go: the second has what was said. */
    assert_true(responses_delete(s.responses, str_of(first)));
    assert_false(responses_delete(s.responses, str_of(first)));
    same_messages(&s, BODY(after(second), OUTPUT("call_1", "r2")),
                  BODY("", SAYS("q1"), ANSWERED("a1"), OUTPUT("call_1", "r1"), SAYS("q2"),
                       ANSWERED("a2"), OUTPUT("call_1", "r2")));
    /* Places are told as the client counts them. */
    Turn t;
    ApiError e;
    assert_false(parse_with(&s, BODY(after(second), SAYS("x"), OUTPUT("c9", "r")), &t, &e));
    assert_string_equal(e.code, "unknown_call_id");
    assert_non_null(strstr(e.message, "input[1]"));
    responses_store_free(s.responses);
}

/* ---- after a restart ------------------------------------------------------------------------ */

static size_t restored; /* by the last remake */

/* Another process on the same folder. */
static void remake(StoreFolder *f, ServerInfo *s, size_t max_bytes)
{
    ds4_err err;
    responses_store_free(s->responses);
    if (f->store)
        store_folder_close(f);
    *s = with_store(max_bytes);
    if (!responses_persist(s->responses, store_folder_open(f), max_bytes, &restored, &err))
        fail_msg("%s", err.msg);
}

static void end(StoreFolder *f, ServerInfo *s)
{
    responses_store_free(s->responses);
    store_folder_close(f);
    store_folder_remove(f);
}

static bool is_there(const ServerInfo *s, const char *id)
{
    Bytes b = { 0 };
    bool found = responses_get(s->responses, str_of(id), &b);
    bytes_release(&b);
    return found;
}

static void a_conversation_goes_on_after_each_restart(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ServerInfo s = test_server;
    char first[64], second[64];
    s.responses = NULL;
    remake(&f, &s, 1 << 20);
    answer(&s, "{\"input\": \"q1\"}", "a1", first);
    remake(&f, &s, 1 << 20);
    assert_int_equal(restored, 1);
    answer(&s, BODY(after(first), OUTPUT("call_1", "r1"), SAYS("q2")), "a2", second);
    remake(&f, &s, 1 << 20);
    assert_int_equal(restored, 2);
    same_messages(&s, BODY(after(second), OUTPUT("call_1", "r2")),
                  BODY("", SAYS("q1"), ANSWERED("a1"), OUTPUT("call_1", "r1"), SAYS("q2"),
                       ANSWERED("a2"), OUTPUT("call_1", "r2")));
    Bytes whole = { 0 };
    assert_true(responses_get(s.responses, str_of(second), &whole));
    Json *o = json_read(bytes_view(&whole), NULL);
    assert_true(json_is(json_member(o, "id"), second));
    json_free(o);
    bytes_release(&whole);
    end(&f, &s);
}

static void items_may_be_pointed_to_after_a_restart(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ServerInfo s = test_server;
    char id[64];
    s.responses = NULL;
    remake(&f, &s, 1 << 20);
    ids_given = 0;
    answer(&s, "{\"input\": \"q1\"}", "a1", id);
    remake(&f, &s, 1 << 20);
    same_messages(&s,
                  BODY("", SAYS("q1"), "{\"type\": \"item_reference\", \"id\": \"rs_" ID(2) "\"}",
                       "{\"id\": \"msg_" ID(3) "\"}",
                       "{\"type\": \"item_reference\", \"id\": \"fc_" ID(4) "\"}",
                       OUTPUT("call_1", "r1")),
                  BODY("", SAYS("q1"), ANSWERED("a1"), OUTPUT("call_1", "r1")));
    end(&f, &s);
}

/* Not even where others go on from it: of those only the words stay. */
static void what_was_deleted_does_not_come_back(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ServerInfo s = test_server;
    char first[64], second[64], third[64];
    s.responses = NULL;
    remake(&f, &s, 1 << 20);
    answer(&s, "{\"input\": \"q1\"}", "a1", first);
    answer(&s, BODY(after(first), OUTPUT("call_1", "r1"), SAYS("q2")), "a2", second);
    answer(&s, "{\"input\": \"alone\"}", "a3", third);
    assert_true(responses_delete(s.responses, str_of(first)));
    assert_true(responses_delete(s.responses, str_of(third)));
    for (int i = 0; i < 2; i++) {
        remake(&f, &s, 1 << 20);
        assert_int_equal(restored, 1);
        assert_false(is_there(&s, first));
        assert_false(is_there(&s, third));
        same_messages(&s, BODY(after(second), OUTPUT("call_1", "r2")),
                      BODY("", SAYS("q1"), ANSWERED("a1"), OUTPUT("call_1", "r1"), SAYS("q2"),
                           ANSWERED("a2"), OUTPUT("call_1", "r2")));
    }
    assert_true(responses_delete(s.responses, str_of(second)));
    remake(&f, &s, 1 << 20);
    assert_int_equal(restored, 0);
    end(&f, &s);
}

/* Half a conversation is worse than none. */
static void where_a_beginning_is_damaged_what_goes_on_from_it_is_not_there(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ServerInfo s = test_server;
    char first[64], second[64], third[64];
    s.responses = NULL;
    remake(&f, &s, 1 << 20);
    answer(&s, "{\"input\": \"q1\"}", "a1", first);
    answer(&s, BODY(after(first), OUTPUT("call_1", "r1"), SAYS("q2")), "a2", second);
    answer(&s, "{\"input\": \"alone\"}", "a3", third);
    responses_store_free(s.responses);
    s.responses = NULL;
    store_folder_close(&f);
    store_folder_damage(&f, "responses.journal", 200);
    remake(&f, &s, 1 << 20);
    assert_int_equal(restored, 1);
    assert_false(is_there(&s, first));
    assert_false(is_there(&s, second));
    assert_true(is_there(&s, third));
    end(&f, &s);
}

static void a_record_that_is_none_is_harmless(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ServerInfo s = test_server;
    char first[64], second[64];
    s.responses = NULL;
    remake(&f, &s, 1 << 20);
    answer(&s, "{\"input\": \"q1\"}", "a1", first);
    answer(&s, BODY(after(first), OUTPUT("call_1", "r1"), SAYS("q2")), "a2", second);
    responses_store_free(s.responses);
    s.responses = NULL;
    store_folder_close(&f);
    store_folder_spoil(&f, "responses");
    remake(&f, &s, 64 << 20);
    assert_true(restored > 1);
    /* Links that were made of wrong bytes can be gone on from like any other. */
    json_free(responses_find(s.responses, str_of(first)));
    json_free(responses_find(s.responses, str_of(second)));
    end(&f, &s);
}

static void no_more_comes_back_than_the_bounds_allow(void **state)
{
    (void)state;
    StoreFolder f = { 0 };
    ServerInfo s = test_server;
    char id[20][64];
    s.responses = NULL;
    remake(&f, &s, 1 << 20);
    for (size_t i = 0; i < COUNT(id); i++)
        answer(&s, "{\"input\": \"q1\"}", "a1", id[i]);
    remake(&f, &s, 8192);
    assert_in_range(restored, 1, 8);
    assert_true(is_there(&s, id[19]));
    assert_false(is_there(&s, id[0]));
    end(&f, &s);
}

static void an_item_may_be_pointed_to(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    char id[64];
    ids_given = 0;
    answer(&s, "{\"input\": \"q1\"}", "a1", id);
    same_messages(&s,
                  BODY("", SAYS("q1"), "{\"type\": \"item_reference\", \"id\": \"rs_" ID(2) "\"}",
                       "{\"id\": \"msg_" ID(3) "\"}",
                       "{\"type\": \"item_reference\", \"id\": \"fc_" ID(4) "\"}",
                       OUTPUT("call_1", "r1")),
                  BODY("", SAYS("q1"), ANSWERED("a1"), OUTPUT("call_1", "r1")));
    responses_store_free(s.responses);
}

static void pointers_cannot_stand_for_more_than_a_body(void **state)
{
    (void)state;
    ServerInfo s = with_store(64 << 20);
    Bytes text = { 0 }, body = { 0 };
    char id[64];
    ApiError e;
    Turn t;
    bytes_fill(&text, 'x', 1 << 20);
    bytes_byte(&text, 0);
    ids_given = 0;
    answer(&s, "{\"input\": \"q1\"}", text.p, id);
    bytes_str(&body, "{\"input\": [");
    for (int i = 0; i < 80; i++)
        bytes_str(&body, i ? ",{\"id\": \"msg_" ID(3) "\"}" : "{\"id\": \"msg_" ID(3) "\"}");
    bytes_str(&body, "]}");
    bytes_byte(&body, 0);
    assert_false(parse_with(&s, body.p, &t, &e));
    assert_string_equal(e.param, "input");
    bytes_release(&text);
    bytes_release(&body);
    responses_store_free(s.responses);
}

static void a_response_can_be_asked_for_and_taken_away(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    Bytes got = { 0 };
    char id[64];
    ApiError e;
    Turn t;
    answer(&s, "{\"input\": \"q1\"}", "a1", id);
    assert_true(responses_get(s.responses, str_of(id), &got));
    Json *response = json_read(bytes_view(&got), NULL);
    assert_true(json_is(json_member(response, "id"), id));
    assert_true(json_is(json_member(response, "status"), "completed"));
    const Json *output = json_member(response, "output");
    assert_int_equal(json_length(output), 3);
    /* As it was told: without the reasoning that nobody asked for. */
    assert_int_equal(json_length(json_member(json_at(output, 0), "summary")), 0);
    assert_null(json_member(json_at(output, 0), "content"));
    assert_null(json_member(json_at(output, 0), "encrypted_content"));
    json_free(response);
    assert_true(responses_delete(s.responses, str_of(id)));
    assert_false(responses_get(s.responses, str_of(id), &got));
    assert_false(parse_with(&s, BODY(after(id), SAYS("x")), &t, &e));
    assert_string_equal(e.code, "previous_response_not_found");
    bytes_release(&got);
    responses_store_free(s.responses);
}

static void what_is_not_to_be_stored_is_not(void **state)
{
    (void)state;
    ServerInfo s = with_store(1 << 20);
    Bytes got = { 0 };
    char id[64];
    answer(&s, "{\"store\": false, \"input\": \"q1\"}", "a1", id);
    assert_false(responses_get(s.responses, str_of(id), &got));
    /* Nor is what has not ended. */
    Turn t;
    parse_at(&s, "{\"input\": \"q1\"}", &t);
    Answer *a = dialect_responses.answer_new(&t, &s);
    responses_done(a, s.responses);
    assert_false(responses_get(s.responses, str_of(responses_id(a)), &got));
    dialect_responses.answer_free(a);
    turn_release(&t);
    bytes_release(&got);
    responses_store_free(s.responses);
}

/* ---- the store by itself --------------------------------------------------------------------- */

static bool keep(ResponseStore *s, const char *id, const char *previous, const char *input,
                 const char *output)
{
    Json *in = json_read(str_of(input), NULL), *out = json_read(str_of(output), NULL);
    bool ok = responses_keep(s, &(KeptResponse){ .id = str_of(id),
                                                 .previous = str_of(previous),
                                                 .input = in,
                                                 .output = out,
                                                 .reply = str_of(id) });
    json_free(in);
    json_free(out);
    return ok;
}

static bool knows(ResponseStore *s, const char *id)
{
    Bytes got = { 0 };
    bool known = responses_get(s, str_of(id), &got);
    assert_true(!known || str_eq(bytes_view(&got), str_of(id)));
    bytes_release(&got);
    return known;
}

static void finds(ResponseStore *s, const char *id, const char *want)
{
    Json *list = responses_find(s, str_of(id));
    Bytes got = { 0 };
    assert_non_null(list);
    json_write(&got, list);
    str_is(bytes_view(&got), want);
    bytes_release(&got);
    json_free(list);
}

static void an_answers_item_is_not_hidden_by_a_clients(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    Bytes got = { 0 };
    assert_true(keep(s, "r0", "", "[]", "[{\"id\": \"i\", \"n\": 1}]"));
    assert_true(keep(s, "r1", "", "[{\"id\": \"i\", \"n\": 2}]", "[]"));
    assert_true(responses_item(s, STR("i"), &got));
    assert_true(str_eq(bytes_view(&got), STR("{\"id\": \"i\", \"n\": 1}")));
    bytes_release(&got);
    responses_store_free(s);
}

static void what_was_used_least_lately_goes_first(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    char id[16];
    for (int i = 0; i < 256; i++) {
        snprintf(id, sizeof id, "r%d", i);
        assert_true(keep(s, id, "", "[{\"id\": \"i\"}]", "[]"));
    }
    assert_true(knows(s, "r0"));
    assert_true(keep(s, "r256", "", "[{}]", "[]"));
    assert_true(keep(s, "r257", "", "[{}]", "[]"));
    assert_true(knows(s, "r0") && knows(s, "r3") && knows(s, "r257"));
    assert_false(knows(s, "r1") || knows(s, "r2"));
    responses_store_free(s);
}

static void a_conversation_outlives_its_first_answers(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    char id[16], previous[16];
    assert_true(keep(s, "r0", "", "[\"q0\"]", "[\"a0\"]"));
    for (int i = 1; i <= 300; i++) {
        snprintf(id, sizeof id, "r%d", i);
        snprintf(previous, sizeof previous, "r%d", i - 1);
        Json *list = responses_find(s, str_of(previous));
        Bytes all = { 0 };
        assert_int_equal(json_length(list), 2 * i);
        json_write(&all, list);
        all.n--; /* of "]" */
        bytes_str(&all, ", \"q\"]");
        bytes_byte(&all, 0);
        assert_true(keep(s, id, previous, all.p, "[\"a\"]"));
        bytes_release(&all);
        json_free(list);
    }
    assert_false(knows(s, "r0"));
    Json *list = responses_find(s, STR("r300"));
    assert_int_equal(json_length(list), 602);
    assert_true(json_is(json_at(list, 0), "q0") && json_is(json_at(list, 1), "a0"));
    json_free(list);
    responses_store_free(s);
}

static void what_goes_on_from_an_answer_that_has_gone_is_kept_in_full(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    assert_true(keep(s, "r1", "", "[\"q1\"]", "[\"a1\"]"));
    assert_true(responses_delete(s, STR("r1")));
    assert_true(keep(s, "r2", "r1", "[\"q1\", \"a1\", \"q2\"]", "[]"));
    finds(s, "r2", "[\"q1\", \"a1\", \"q2\"]");
    assert_null(responses_find(s, STR("r1")));
    responses_store_free(s);
}

static Bytes list_of(const char *first, size_t n)
{
    Bytes b = { 0 };
    bytes_printf(&b, "[%s\"", first);
    bytes_fill(&b, 'x', n);
    bytes_str(&b, "\"]");
    bytes_byte(&b, 0);
    return b;
}

static void bytes_are_bounded(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(4096);
    Bytes some = list_of("", 1000), most = list_of("", 5000);
    assert_true(keep(s, "r1", "", some.p, "[]"));
    assert_true(keep(s, "r2", "", some.p, "[]"));
    assert_true(keep(s, "r3", "", some.p, "[]"));
    assert_true(knows(s, "r3") && !knows(s, "r1"));
    /* Too large by itself: the others stay. */
    assert_false(keep(s, "r4", "", most.p, "[]"));
    assert_true(knows(s, "r3") && !knows(s, "r4"));
    bytes_release(&some);
    bytes_release(&most);
    responses_store_free(s);
}

static void a_conversation_that_has_grown_too_long_is_not_kept(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(5500);
    Bytes some = list_of("", 1000), more = list_of("\"q\", \"a\", ", 1000);
    assert_true(keep(s, "r0", "", more.p, some.p)); /* alone it may be so long */
    assert_true(keep(s, "r1", "", "[\"q\"]", some.p));
    assert_false(keep(s, "r2", "r1", more.p, some.p));
    assert_true(knows(s, "r1") && !knows(s, "r2"));
    bytes_release(&some);
    bytes_release(&more);
    responses_store_free(s);
}

static void the_newest_of_two_items_with_one_id_is_found(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    Bytes got = { 0 };
    assert_true(keep(s, "r1", "", "[{\"id\": \"i\", \"n\": 1}]", "[]"));
    assert_true(keep(s, "r2", "", "[{\"n\": 0}]", "[{\"id\": \"i\", \"n\": 2}]"));
    assert_true(responses_item(s, STR("i"), &got));
    str_is(bytes_view(&got), "{\"id\": \"i\", \"n\": 2}");
    bytes_clear(&got);
    assert_true(responses_delete(s, STR("r2")));
    assert_true(responses_item(s, STR("i"), &got));
    str_is(bytes_view(&got), "{\"id\": \"i\", \"n\": 1}");
    /* In whichever order they go. */
    assert_true(keep(s, "r3", "", "[{\"id\": \"i\", \"n\": 3}]", "[]"));
    assert_true(responses_delete(s, STR("r1")));
    bytes_clear(&got);
    assert_true(responses_item(s, STR("i"), &got));
    str_is(bytes_view(&got), "{\"id\": \"i\", \"n\": 3}");
    assert_true(responses_delete(s, STR("r3")));
    assert_false(responses_item(s, STR("i"), &got));
    bytes_release(&got);
    responses_store_free(s);
}

static void what_is_pointed_into_is_in_use(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    Bytes got = { 0 };
    char id[16];
    for (int i = 0; i < 256; i++) {
        snprintf(id, sizeof id, "r%d", i);
        assert_true(keep(s, id, "", i ? "[{}]" : "[{\"id\": \"i\"}]", "[]"));
    }
    assert_true(responses_item(s, STR("i"), &got));
    assert_true(keep(s, "r256", "", "[{}]", "[]"));
    assert_true(knows(s, "r0") && !knows(s, "r1"));
    bytes_release(&got);
    responses_store_free(s);
}

static void what_has_gone_leaves_its_room(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(4096);
    Bytes some = list_of("", 1000);
    assert_true(keep(s, "r0", "", "[\"q\"]", "[]"));
    for (int i = 0; i < 20; i++) {
        assert_true(keep(s, "r1", "", some.p, "[]"));
        assert_true(responses_delete(s, STR("r1")));
    }
    assert_true(knows(s, "r0"));
    bytes_release(&some);
    responses_store_free(s);
}

/* Workers read conversations while answers are kept and go. */
static void *reads(void *store)
{
    for (int i = 0; i < 2000; i++) {
        Bytes got = { 0 };
        Json *list = responses_find(store, STR("r1"));
        assert_true(!list || json_length(list) == 2);
        json_free(list);
        assert_true(!responses_item(store, STR("i"), &got) ||
                    str_eq(bytes_view(&got), STR("{\"id\": \"i\"}")));
        bytes_release(&got);
    }
    return NULL;
}

static void threads_may_share_a_store(void **state)
{
    (void)state;
    ResponseStore *s = responses_store_new(1 << 20);
    pthread_t reader[2];
    for (size_t i = 0; i < COUNT(reader); i++)
        assert_int_equal(pthread_create(&reader[i], NULL, reads, s), 0);
    for (int i = 0; i < 2000; i++) {
        assert_true(keep(s, "r1", "", "[\"q\"]", "[{\"id\": \"i\"}]"));
        assert_true(responses_delete(s, STR("r1")));
    }
    for (size_t i = 0; i < COUNT(reader); i++)
        pthread_join(reader[i], NULL);
    responses_store_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(going_on_from_a_response_is_as_telling_it_all_again),
        cmocka_unit_test(a_conversation_goes_on_after_each_restart),
        cmocka_unit_test(items_may_be_pointed_to_after_a_restart),
        cmocka_unit_test(what_was_deleted_does_not_come_back),
        cmocka_unit_test(where_a_beginning_is_damaged_what_goes_on_from_it_is_not_there),
        cmocka_unit_test(a_record_that_is_none_is_harmless),
        cmocka_unit_test(no_more_comes_back_than_the_bounds_allow),
        cmocka_unit_test(an_item_may_be_pointed_to),
        cmocka_unit_test(pointers_cannot_stand_for_more_than_a_body),
        cmocka_unit_test(a_response_can_be_asked_for_and_taken_away),
        cmocka_unit_test(what_is_not_to_be_stored_is_not),
        cmocka_unit_test(an_answers_item_is_not_hidden_by_a_clients),
        cmocka_unit_test(what_was_used_least_lately_goes_first),
        cmocka_unit_test(a_conversation_outlives_its_first_answers),
        cmocka_unit_test(what_goes_on_from_an_answer_that_has_gone_is_kept_in_full),
        cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(a_conversation_that_has_grown_too_long_is_not_kept),
        cmocka_unit_test(the_newest_of_two_items_with_one_id_is_found),
        cmocka_unit_test(what_is_pointed_into_is_in_use),
        cmocka_unit_test(what_has_gone_leaves_its_room),
        cmocka_unit_test(threads_may_share_a_store),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    arena_release(&bodies);
    return failed;
}
