/* split.c - the pre-tokenizer, by PCRE2.
 *
 * The reference's first two passes isolate numbers and CJK runs. Their
 * characters are disjoint, so one pattern finds both; the third pass then sees
 * each other piece alone: its look-ahead and its end of text are the piece's.
 *
 * The reference's classes are those of Unicode 16. Older PCRE2 knows fewer
 * characters (Unicode 14 in version 10.40), none of which has changed its
 * class since; so what 15.0, 15.1 and 16.0 assigned is added by hand, and ids
 * do not depend on the library's age. */
#include "split.h"
#include "../base/utf8.h"
#include "../base/bytes.h"
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Classes, for use inside brackets. */
#define N \
    "\\p{N}\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}" \
    "\\x{11F50}-\\x{11F59}\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}" \
    "\\x{1D2C0}-\\x{1D2D3}\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
#define L \
    "\\p{L}\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}" \
    "\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}" \
    "\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}" \
    "\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}" \
    "\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}" \
    "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}" \
    "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}" \
    "\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define M \
    "\\p{M}\\x{897}\\x{CF3}\\x{ECE}\\x{10D69}-\\x{10D6D}\\x{10EFC}-\\x{10EFF}\\x{11241}" \
    "\\x{113B8}-\\x{113C0}\\x{113C2}\\x{113C5}\\x{113C7}-\\x{113CA}\\x{113CC}-\\x{113D0}" \
    "\\x{113D2}\\x{113E1}-\\x{113E2}\\x{11F00}-\\x{11F01}\\x{11F03}\\x{11F34}-\\x{11F3A}" \
    "\\x{11F3E}-\\x{11F42}\\x{11F5A}\\x{13440}\\x{13447}-\\x{13455}\\x{1611E}-\\x{1612F}" \
    "\\x{1E08F}\\x{1E4EC}-\\x{1E4EF}\\x{1E5EE}-\\x{1E5EF}"
#define P \
    "\\p{P}\\x{1B4E}-\\x{1B4F}\\x{1B7F}\\x{10D6E}\\x{113D4}-\\x{113D5}\\x{113D7}-\\x{113D8}" \
    "\\x{11B00}-\\x{11B09}\\x{11BE1}\\x{11F43}-\\x{11F4F}\\x{16D6D}-\\x{16D6F}\\x{1E5FF}"
#define S \
    "\\p{S}\\x{2427}-\\x{2429}\\x{2FFC}-\\x{2FFF}\\x{31E4}-\\x{31E5}\\x{31EF}" \
    "\\x{10D8E}-\\x{10D8F}\\x{1CC00}-\\x{1CCEF}\\x{1CD00}-\\x{1CEB3}\\x{1F6DC}" \
    "\\x{1F774}-\\x{1F776}\\x{1F77B}-\\x{1F77F}\\x{1F7D9}\\x{1F8B2}-\\x{1F8BB}" \
    "\\x{1F8C0}-\\x{1F8C1}\\x{1FA75}-\\x{1FA77}\\x{1FA87}-\\x{1FA89}\\x{1FA8F}" \
    "\\x{1FAAD}-\\x{1FAAF}\\x{1FABB}-\\x{1FABF}\\x{1FAC6}\\x{1FACE}-\\x{1FACF}" \
    "\\x{1FADA}-\\x{1FADC}\\x{1FADF}\\x{1FAE8}-\\x{1FAE9}\\x{1FAF7}-\\x{1FAF8}" \
    "\\x{1FBCB}-\\x{1FBEF}"
/* White_Space; PCRE2's \s has U+180E too. */
#define W \
    "\\t-\\r \\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

static const char numbers_and_cjk[] = "[" N "]{1,3}|[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+";

static const char words[] = "[!-/:-@\\[-`{-~][A-Za-z]+"
                            "|[^\\r\\n" L P S "]?[" L M "]+"
                            "| ?[" P S "]+[\\r\\n]*"
                            "|[" W "]*[\\r\\n]+"
                            "|[" W "]+(?![^" W "])"
                            "|[" W "]+";

struct Splitter {
    pcre2_code *pass[2];
    pcre2_match_context *match;
};

/* One call of split_text. */
typedef struct {
    const Splitter *s;
    pcre2_match_data *data[2];
    bool (*piece)(void *user, Str s);
    void *user;
    /* Where text had bytes outside UTF-8, each is U+FFFF in `clean`, three
     * bytes at bad[i]; next is the first of them not yet passed. */
    Str text, clean;
    size_t *bad, n_bad, next;
    ds4_err *err;
} Job;

static bool clean_text(Job *j, Bytes *clean);
static bool run_pass(Job *j, int pass, Str s);

static pcre2_code *compile(const char *pattern, ds4_err *err)
{
    int code;
    size_t at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &code, &at, NULL);
    if (!re) {
        fail(err, DS4_ENOMEM, "pre-tokenizer: PCRE2 error %d at %zu of its pattern", code, at);
        return NULL;
    }
    /* Where the system forbids making code, matching is interpreted: slower,
     * with the same result. */
    pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    return re;
}

Splitter *split_new(ds4_err *err)
{
    Splitter *s = calloc(1, sizeof *s);
    if (!s || !(s->match = pcre2_match_context_create(NULL))) {
        split_free(s);
        fail(err, DS4_ENOMEM, "pre-tokenizer: no memory");
        return NULL;
    }
    /* The patterns backtrack at most once over a run: no length is too long. */
    pcre2_set_match_limit(s->match, UINT32_MAX);
    if (!(s->pass[0] = compile(numbers_and_cjk, err)) || !(s->pass[1] = compile(words, err))) {
        split_free(s);
        return NULL;
    }
    return s;
}

void split_free(Splitter *s)
{
    if (!s)
        return;
    pcre2_code_free(s->pass[0]);
    pcre2_code_free(s->pass[1]);
    pcre2_match_context_free(s->match);
    free(s);
}

bool split_text(const Splitter *s, Str text, bool (*piece)(void *user, Str s), void *user,
                ds4_err *err)
{
    Job j = { .s = s, .piece = piece, .user = user, .text = text, .clean = text, .err = err };
    Bytes clean = { 0 };
    bool ok = true;
    if (text.n == 0)
        return true;
    for (int i = 0; i < 2 && ok; i++) {
        j.data[i] = pcre2_match_data_create(1, NULL);
        ok = j.data[i] != NULL;
    }
    ok = ok && (utf8_valid(text) == text.n || clean_text(&j, &clean));
    if (!ok)
        fail(err, DS4_ENOMEM, "pre-tokenizer: no memory for %zu bytes", text.n);
    ok = ok && run_pass(&j, 0, j.clean);
    for (int i = 0; i < 2; i++)
        pcre2_match_data_free(j.data[i]);
    bytes_release(&clean);
    free(j.bad);
    return ok;
}

/* A noncharacter has no class, as a stray byte has none. */
static bool clean_text(Job *j, Bytes *clean)
{
    Str t = j->text;
    size_t cap = 0;
    for (size_t i = 0; i < t.n;) {
        size_t good = utf8_valid((Str){ t.p + i, t.n - i });
        bytes_put(clean, t.p + i, good);
        i += good;
        if (i == t.n)
            break;
        if (j->n_bad == cap) {
            cap = cap ? 2 * cap : 64;
            size_t *grown = realloc(j->bad, cap * sizeof *grown);
            if (!grown)
                return false;
            j->bad = grown;
        }
        j->bad[j->n_bad++] = clean->n;
        bytes_str(clean, "\xEF\xBF\xBF");
        i++;
    }
    j->clean = bytes_view(clean);
    return !clean->failed;
}

/* Pieces come in order, so the bytes put in before one are known. */
static bool emit(Job *j, Str s)
{
    if (j->n_bad) {
        size_t at = (size_t)(s.p - j->clean.p), first = j->next;
        while (j->next < j->n_bad && j->bad[j->next] < at + s.n)
            j->next++;
        s = (Str){ j->text.p + at - 2 * first, s.n - 2 * (j->next - first) };
    }
    return j->piece(j->user, s);
}

/* Every piece of the first pass is split again; numbers stay whole, since the
 * second has no match in them. */
static bool give(Job *j, int pass, Str s)
{
    if (s.n == 0)
        return true;
    return pass == 1 ? emit(j, s) : run_pass(j, 1, s);
}

static bool run_pass(Job *j, int pass, Str s)
{
    size_t at = 0;
    while (at < s.n) {
        int found = pcre2_match(j->s->pass[pass], (PCRE2_SPTR)s.p, s.n, at, PCRE2_NO_UTF_CHECK,
                                j->data[pass], j->s->match);
        if (found == PCRE2_ERROR_NOMATCH)
            break;
        if (found < 0)
            return fail(j->err, DS4_ENOMEM, "pre-tokenizer: PCRE2 error %d in %zu bytes", found,
                        s.n);
        const size_t *span = pcre2_get_ovector_pointer(j->data[pass]);
        if (!give(j, pass, (Str){ s.p + at, span[0] - at }) ||
            !give(j, pass, (Str){ s.p + span[0], span[1] - span[0] }))
            return false;
        at = span[1];
    }
    return give(j, pass, (Str){ s.p + at, s.n - at });
}
