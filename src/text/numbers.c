/* numbers.c - the spellings of numbers within bounds.
 *
 * Written as regular expressions, digit by digit from the left, and compiled
 * as such. Bounds of one kind are cut with the other by the automata. */
#include "numbers.h"
#include "regex.h"
#include <stdlib.h>

__extension__ typedef __int128 Wide;

/* What integers may be: as many bits as JSON readers take. */
#define LEAST (-((Wide)1 << 63))
#define MOST  (((Wide)1 << 64) - 1)

static bool compile(Dfa *out, Bytes *regex, Effort *effort, ds4_err *err)
{
    bool ok = regex->failed
                  ? fail(err, DS4_ENOMEM, "no memory for a range of numbers")
                  : regex_compile(out, bytes_view(regex), (RegexOptions){ 0 }, effort, err);
    bytes_release(regex);
    return ok;
}

/* ---- bounds --------------------------------------------------------------------------- */

/* digits and where the point is among them, to whole and frac. */
static bool place_point(Bound *b, const char *digits, long n, long point)
{
    long from = 0, w = 0, f = 0;
    while (from < n && digits[from] == '0')
        from++;
    for (long i = MIN(from, point); i < MAX(n, point); i++) {
        char c = i >= from && i < n ? digits[i] : '0';
        if (i < point && (w > 0 || c != '0') && w < 41)
            b->whole[w++] = c;
        else if (i >= point && f < 41)
            b->frac[f++] = c;
        if (w > 40 || (f > 40 && c != '0'))
            return false;
    }
    while (f > 0 && b->frac[f - 1] == '0')
        f--;
    if (w == 0)
        b->whole[w++] = '0';
    b->whole[w] = b->frac[f] = '\0';
    if (f == 0 && w == 1 && b->whole[0] == '0')
        b->negative = false;
    return true;
}

bool bound_read(Bound *b, Str text)
{
    char copy[64], digits[64];
    long n = 0, point = -1, exponent = 0;
    if (text.n >= sizeof copy)
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    *b = (Bound){ .set = true, .negative = copy[0] == '-', .value = strtod(copy, NULL) };
    for (const char *c = copy + b->negative; *c; c++) {
        if (*c == '.') {
            point = n;
        } else if (*c == 'e' || *c == 'E') {
            exponent = strtol(c + 1, NULL, 10);
            break;
        } else if (*c >= '0' && *c <= '9') {
            digits[n++] = *c;
        } else {
            return false;
        }
    }
    if (exponent > 400 || exponent < -400)
        return false;
    return place_point(b, digits, n, (point < 0 ? n : point) + exponent);
}

/* ---- integers --------------------------------------------------------------------------- */

static void any_digits(Bytes *out, size_t n)
{
    if (n)
        bytes_printf(out, "[0-9]{%zu}", n);
}

/* As many digits as s, and at least (or at most) what they say. */
static void one_sided(Bytes *out, const char *s, size_t n, bool at_least)
{
    for (size_t i = 0; i < n; i++) {
        char from = at_least ? (char)(s[i] + 1) : '0', to = at_least ? '9' : (char)(s[i] - 1);
        bytes_str(out, "(?:");
        if (from <= to) {
            bytes_printf(out, "[%c-%c]", from, to);
            any_digits(out, n - i - 1);
            bytes_byte(out, '|');
        }
        bytes_byte(out, (unsigned char)s[i]);
    }
    for (size_t i = 0; i < n; i++)
        bytes_byte(out, ')');
}

/* Between two numbers of n digits. */
static void same_length(Bytes *out, const char *lo, const char *hi, size_t n)
{
    size_t i = 0;
    for (; i < n && lo[i] == hi[i]; i++)
        bytes_byte(out, (unsigned char)lo[i]);
    if (i == n)
        return;
    size_t rest = n - i - 1;
    bytes_printf(out, "(?:%c", lo[i]);
    one_sided(out, lo + i + 1, rest, true);
    bytes_printf(out, "|%c", hi[i]);
    one_sided(out, hi + i + 1, rest, false);
    if (lo[i] + 1 < hi[i]) {
        bytes_printf(out, "|[%c-%c]", lo[i] + 1, hi[i] - 1);
        any_digits(out, rest);
    }
    bytes_byte(out, ')');
}

static size_t to_digits(Wide v, char out[48])
{
    char back[48];
    size_t n = 0;
    do
        back[n++] = (char)('0' + (int)(v % 10));
    while ((v /= 10) > 0);
    for (size_t i = 0; i < n; i++)
        out[i] = back[n - 1 - i];
    out[n] = '\0';
    return n;
}

/* Alternatives for lo..hi, 0 <= lo <= hi, one for each number of digits. */
static void magnitudes(Bytes *out, Wide lo, Wide hi)
{
    Wide power = 10;
    bool any = false;
    for (size_t n = 1; n < 40; n++, power *= 10) {
        Wide from = MAX(lo, n == 1 ? 0 : power / 10), to = MIN(hi, power - 1);
        if (from <= to) {
            char a[48], b[48];
            to_digits(from, a);
            to_digits(to, b);
            bytes_str(out, any ? "|" : "");
            same_length(out, a, b, n);
            any = true;
        }
        if (power > hi)
            return;
    }
}

/* The least (or greatest) integer within a bound, at most one beyond LEAST..MOST. */
static Wide whole_bound(const Bound *b, bool lower)
{
    Wide v = 0;
    if (!b->set)
        return lower ? LEAST : MOST;
    for (const char *c = b->whole; *c; c++)
        v = MIN(v * 10 + (*c - '0'), MOST + 2);
    bool exact = b->frac[0] == '\0';
    if (b->negative)
        v = -v;
    if (exact)
        v += !b->exclusive ? 0 : lower ? 1 : -1;
    else if (lower != b->negative)
        v += lower ? 1 : -1;
    return MAX(LEAST - 1, MIN(MOST + 1, v));
}

bool integers_between(Dfa *out, const Bound *lo, const Bound *hi, uint32_t multiple, Effort *effort,
                      ds4_err *err)
{
    Wide from = MAX(whole_bound(lo, true), LEAST), to = MIN(whole_bound(hi, false), MOST);
    Bytes regex = { 0 };
    *out = (Dfa){ 0 };
    if (from > to) {
        bytes_str(&regex, "[^\\s\\S]");
        return compile(out, &regex, effort, err);
    }
    if (to >= 0)
        magnitudes(&regex, MAX(from, 0), to);
    if (from < 0) {
        bytes_str(&regex, to >= 0 ? "|-(?:" : "-(?:");
        magnitudes(&regex, to < 0 ? -to : 1, -from);
        bytes_byte(&regex, ')');
    }
    if (!compile(out, &regex, effort, err) || multiple < 2)
        return out->n_states > 0;
    Dfa all = *out, multiples;
    *out = (Dfa){ 0 };
    bool ok = dfa_multiples(&multiples, multiple, effort, err);
    ok = ok && dfa_and(out, &all, &multiples, effort, err);
    dfa_release(&multiples);
    dfa_release(&all);
    return ok;
}

/* ---- reals -------------------------------------------------------------------------------- */

#define WHOLE    "(?:0|[1-9][0-9]{0,20})"
#define FRACTION "(?:\\.[0-9]{1,20})?"
#define DIGITS   "[0-9]{0,20}"

/* What may follow a whole part that equals the bound's, so that all is at least
 * (or at most) the bound's fraction. */
static void fractions(Bytes *out, const Bound *b, bool at_least)
{
    const char *f = b->frac;
    size_t n = strlen(f);
    bool strict = b->exclusive;
    if (n == 0 && at_least) {
        bytes_str(out, strict ? "\\." DIGITS "[1-9]" DIGITS : FRACTION);
        return;
    }
    if (n == 0) {
        bytes_str(out, strict ? "[^\\s\\S]" : "(?:\\.0{1,20})?");
        return;
    }
    bytes_str(out, at_least ? "\\." : "(?:\\.");
    for (size_t i = 0; i < n; i++) {
        char from = at_least ? (char)(f[i] + 1) : '0', to = at_least ? '9' : (char)(f[i] - 1);
        bytes_str(out, "(?:");
        if (from <= to)
            bytes_printf(out, "[%c-%c]" DIGITS "|", from, to);
        bytes_byte(out, (unsigned char)f[i]);
        /* Fewer digits than the bound has make a smaller number. */
        if (!at_least && i + 1 < n)
            bytes_str(out, "(?:");
    }
    if (at_least)
        bytes_str(out, strict ? DIGITS "[1-9]" DIGITS : DIGITS);
    else
        bytes_str(out, strict ? "[^\\s\\S]" : "0{0,20}");
    for (size_t i = 0; i < n; i++)
        bytes_str(out, !at_least && i + 1 < n ? ")?)" : ")");
    bytes_str(out, at_least ? "" : ")?");
}

/* Magnitudes of at least (or at most) the bound's. */
static void one_side(Bytes *out, const Bound *b, bool at_least)
{
    Wide w = 0, most = 1;
    for (int i = 0; i < 21; i++)
        most *= 10;
    for (const char *c = b->whole; *c; c++)
        w = MIN(w * 10 + (*c - '0'), most);
    bytes_str(out, "(?:");
    if (w < most) {
        bytes_str(out, b->whole);
        fractions(out, b, at_least);
    } else {
        bytes_str(out, "[^\\s\\S]");
    }
    if (at_least ? w + 1 < most : w > 0) {
        bytes_str(out, "|(?:");
        magnitudes(out, at_least ? w + 1 : 0, at_least ? most - 1 : MIN(w, most) - 1);
        bytes_str(out, ")" FRACTION);
    }
    bytes_byte(out, ')');
}

static bool bounded(Dfa *out, const Bound *b, bool lower, Effort *effort, ds4_err *err)
{
    Bytes regex = { 0 };
    /* On the bound's side of zero magnitudes count; the other side is all in or all out. */
    if (lower == b->negative)
        bytes_str(&regex, lower ? WHOLE FRACTION "|" : "-" WHOLE FRACTION "|");
    if (b->negative)
        bytes_byte(&regex, '-');
    one_side(&regex, b, lower != b->negative);
    return compile(out, &regex, effort, err);
}

bool reals_between(Dfa *out, const Bound *lo, const Bound *hi, Effort *effort, ds4_err *err)
{
    static const char any[] = "-?(?:" WHOLE FRACTION "(?:[eE][+-]?[0-9]{1,2})?|[0-9]" FRACTION
                              "[eE](?:[+]?(?:[12][0-9]{2}|30[0-7])|-(?:[12][0-9]{2}|3[0-2][0-9])))";
    Dfa low = { 0 }, high = { 0 };
    *out = (Dfa){ 0 };
    if (!lo->set && !hi->set)
        return regex_compile(out, str_of(any), (RegexOptions){ 0 }, effort, err);
    bool ok = (!lo->set || bounded(&low, lo, true, effort, err)) &&
              (!hi->set || bounded(&high, hi, false, effort, err));
    if (ok && lo->set && hi->set) {
        ok = dfa_and(out, &low, &high, effort, err);
    } else if (ok) {
        *out = lo->set ? low : high;
        low = high = (Dfa){ 0 };
    }
    dfa_release(&low);
    dfa_release(&high);
    return ok;
}
