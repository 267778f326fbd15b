/* Texts of others as people see them in the log. */
#include "../../src/server/wire.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void a_line_of_the_log_moves_no_terminal(void **state)
{
    static const struct {
        const char *text, *shown;
    } cases[] = {
        { "plain, é, 😀, \u3042", "plain, é, 😀, \u3042" },
        { "\x1b[31m\a\r\n\x7f", "?[31m????" },
        { "\xc2\x80\xc2\x9b"
          "31m\u00a0",
          "??31m\u00a0" },
        { "a\u202e\u2066b\u200f\u2028", "a??b??" },
        { "\xff\x9b\xc2", "???" },
        { "", "" },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char line[64];
        strcpy(line, cases[i].text);
        wire_printable(line);
        assert_string_equal(line, cases[i].shown);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_of_the_log_moves_no_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
