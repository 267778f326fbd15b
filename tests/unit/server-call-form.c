/* Calls are compared by what they say, not by how it is spelled. */
#include "../../src/server/call_form.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_compared_by_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
