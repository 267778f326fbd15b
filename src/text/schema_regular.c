/* schema_regular.c - what is regular of a schema, as automata: strings and numbers. */
#include "schema_parts.h"
#include "regex.h"
#include <stdio.h>

enum { MAX_PATTERN_CHARS = 2000 };
#define CLOSING_TAG "</｜DSML｜parameter>"

/* ---- texts -------------------------------------------------------------------------- */

/* *d becomes `both`; `ok` is how making that went. */
static bool replace(Schemas *s, Dfa *d, Dfa *both, bool ok)
{
    dfa_release(d);
    *d = *both;
    if (!ok)
        schemas_stop(s);
    return ok;
}

bool text_cut(Schemas *s, Dfa *d, Str regex, bool search)
{
    Dfa with = { 0 }, both = { 0 };
    RegexOptions opt = { .search = search };
    if (!regex_compile(&with, regex, opt, &s->p->effort, s->err))
        return schemas_stop(s);
    if (d->n_states == 0) {
        *d = with;
        return true;
    }
    bool ok = dfa_and(&both, d, &with, &s->p->effort, s->err);
    dfa_release(&with);
    return replace(s, d, &both, ok);
}

bool text_without_words(Schemas *s, Dfa *d, const Str *words, size_t n)
{
    Dfa list = { 0 }, rest = { 0 };
    if (n == 0)
        return true;
    bool ok = dfa_words(&list, words, n, &s->p->effort, s->err) &&
              dfa_except(&rest, d, &list, &s->p->effort, s->err);
    dfa_release(&list);
    return replace(s, d, &rest, ok);
}

bool text_without_pattern(Schemas *s, Dfa *d, Str pattern)
{
    Dfa taken = { 0 }, rest = { 0 };
    RegexOptions opt = { .search = true };
    bool ok = regex_compile(&taken, pattern, opt, &s->p->effort, s->err) &&
              dfa_except(&rest, d, &taken, &s->p->effort, s->err);
    dfa_release(&taken);
    return replace(s, d, &rest, ok);
}

bool text_in_json(Schemas *s, Dfa *d)
{
    Dfa inside = { 0 };
    bool ok = dfa_json(&inside, d, &s->p->effort, s->err);
    return replace(s, d, &inside, ok);
}

bool text_without_tag(Schemas *s, Dfa *d)
{
    Dfa tagless = { 0 }, both = { 0 };
    bool ok = dfa_without(&tagless, STR(CLOSING_TAG), &s->p->effort, s->err) &&
              dfa_and(&both, d, &tagless, &s->p->effort, s->err);
    dfa_release(&tagless);
    return replace(s, d, &both, ok);
}

NodeId text_rule(Schemas *s, Dfa *d)
{
    if (s->failed) {
        dfa_release(d);
        return NODE_NONE;
    }
    return node_dfa(s->p, program_dfa(s->p, d), NODE_RET);
}

/* ---- patterns ----------------------------------------------------------------------- */

bool pattern_takes(Schemas *s, Str pattern, Str text, bool *takes)
{
    Dfa d;
    RegexOptions opt = { .search = true };
    if (!regex_compile(&d, pattern, opt, &s->p->effort, s->err))
        return schemas_stop(s);
    *takes = dfa_accepts(&d, text);
    dfa_release(&d);
    return true;
}

/* Can be cut with at all: no looking around, and not too large. */
static bool regular(Schemas *s, Str pattern)
{
    Dfa d;
    bool ok = regex_compile(&d, pattern, (RegexOptions){ .search = true }, &s->p->effort, NULL);
    if (ok)
        dfa_release(&d);
    return ok;
}

/* ---- strings ------------------------------------------------------------------------ */

bool text_of(Schemas *s, const Facets *f, Dfa *d)
{
    char length[64];
    if (s->reader.lenient && !text_cut(s, d, STR("[\\s\\S]*"), false))
        return false;
    for (const Listed *x = f->patterns; x; x = x->next) {
        if (!s->reader.lenient || regular(s, json_text(x->json))) {
            if (!text_cut(s, d, json_text(x->json), true))
                return false;
        }
    }
    if (f->min_chars == 0 && f->max_chars == UINT32_MAX)
        return true;
    if (f->min_chars > MAX_PATTERN_CHARS ||
        (f->max_chars > MAX_PATTERN_CHARS && f->max_chars != UINT32_MAX)) {
        schemas_refuse(s, "pattern", "beside it minLength and maxLength can be 2000 at most");
        return false;
    }
    if (f->max_chars == UINT32_MAX)
        snprintf(length, sizeof length, "[\\s\\S]{%u,}", f->min_chars);
    else
        snprintf(length, sizeof length, "[\\s\\S]{%u,%u}", f->min_chars, f->max_chars);
    return text_cut(s, d, str_of(length), false);
}

NodeId string_rule(Schemas *s, const Facets *f, bool json)
{
    bool counted = f->min_chars > 0 || f->max_chars != UINT32_MAX;
    uint32_t chars = json ? s->json_chars : s->text_chars;
    if (f->min_chars > f->max_chars)
        return NODE_NONE;
    if (!f->patterns)
        return counted ? node_chars(s->p, chars, f->min_chars, f->max_chars, NODE_RET)
                       : node_dfa(s->p, chars, NODE_RET);
    Dfa d = { 0 };
    bool ok = text_of(s, f, &d) && (json ? text_in_json(s, &d) : text_without_tag(s, &d));
    if (!ok)
        dfa_release(&d);
    return ok ? text_rule(s, &d) : NODE_NONE;
}

/* ---- numbers ------------------------------------------------------------------------ */

NodeId number_rule(Schemas *s, const Facets *f)
{
    Dfa d = { 0 };
    bool ok = f->types & T_FRACTION
                  ? reals_between(&d, &f->lo, &f->hi, &s->p->effort, s->err)
                  : integers_between(&d, &f->lo, &f->hi, f->multiple, &s->p->effort, s->err);
    return ok ? text_rule(s, &d) : schemas_stop(s);
}
