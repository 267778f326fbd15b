/* grammar.c - what may come next in an answer: thinking, then text of a form
 * or free, then calls.
 *
 * Free text is only followed as far as needed to see a block of calls begin:
 * "<" and the control token of tools' markup, known by its id. In thinking the
 * whole opening line must have been written: a model may talk about the markup. */
#include "grammar.h"
#include "automaton.h"
#include "lark.h"
#include "regex.h"
#include "schema.h"
#include <stdio.h>
#include <stdlib.h>

#define OPENER "tool_calls>\n"
#define CLOSER "tool_calls>"

enum Phase { PHASE_THINKING, PHASE_FREE, PHASE_HELD, PHASE_OVER };

struct Grammar {
    Program p;
    Automaton *a;
    const TokenTrie *trie;
    const ds4_vocab *v;
    Controls control;
    NodeId after_thinking; /* NODE_NONE: free text */
    NodeId block;          /* behind the opening "<" and the control token */
    enum Phase first;
    bool no_calls; /* tools are declared, and must not be called */
    uint32_t *thinking_mask, *free_mask, *over_mask; /* NULL: all */
};

struct GrammarRun {
    Grammar *g;
    enum Phase phase;
    SetId set;    /* while held */
    bool opening; /* the last byte was < */
    int opened;   /* in thinking: bytes of OPENER seen behind < and the control token, -1: none */
};

static bool build(Grammar *g, const GrammarSpec *spec, ds4_err *err);
static bool make_masks(Grammar *g, ds4_err *err);

/* ---- compiling -------------------------------------------------------------------------- */

Grammar *grammar_compile(const GrammarSpec *spec, const TokenTrie *trie, const ds4_vocab *v,
                         ds4_err *err)
{
    Grammar *g = calloc(1, sizeof *g);
    if (!g) {
        fail(err, DS4_ENOMEM, "grammar: no memory");
        return NULL;
    }
    g->trie = trie;
    g->v = v;
    g->control = *vocab_controls(v);
    g->first = spec->thinking ? PHASE_THINKING : PHASE_FREE;
    g->no_calls = spec->calls == CALLS_NONE && spec->n_tools > 0;
    program_init(&g->p, err);
    g->p.effort.stop = spec->stop;
    g->p.effort.user = spec->user;
    if (build(g, spec, err) && make_masks(g, err) && (g->a = automaton_new(&g->p, trie, err)))
        return g;
    grammar_free(g);
    return NULL;
}

void grammar_free(Grammar *g)
{
    if (!g)
        return;
    automaton_free(g->a);
    program_release(&g->p);
    free(g->thinking_mask);
    free(g->free_mask);
    free(g->over_mask);
    free(g);
}

static NodeId literal(Grammar *g, const char *text, NodeId next)
{
    return node_literal(&g->p, str_of(text), next);
}

static bool text_regex(Grammar *g, Str regex, NodeId *rule, ds4_err *err)
{
    Dfa d;
    if (!regex_compile(&d, regex, (RegexOptions){ 0 }, &g->p.effort, err))
        return false;
    *rule = node_dfa(&g->p, program_dfa(&g->p, &d), NODE_RET);
    return !g->p.failed;
}

/* The one parameter of a custom tool, and the end of the line before </invoke>. */
static bool custom_parameters(Grammar *g, Schemas *s, const GrammarTool *tool, NodeId *rule,
                              ds4_err *err)
{
    NodeId text = schemas_text(s);
    if (str_eq(tool->text_syntax, STR("lark"))) {
        if (!lark_rule(&g->p, tool->text_grammar, &text, err))
            return false;
    } else if (str_eq(tool->text_syntax, STR("regex"))) {
        if (!text_regex(g, tool->text_grammar, &text, err))
            return false;
    } else if (tool->text_syntax.n) {
        return fail(err, DS4_EINVAL, "tool \"%.*s\": the syntax \"%.*s\" is neither lark nor regex",
                    STR_ARG(tool->name), STR_ARG(tool->text_syntax));
    }
    NodeId end = literal(g, "\n</", node_control(&g->p, literal(g, "invoke>", NODE_RET)));
    *rule = node_call(&g->p, schemas_parameter(s, STR("input"), text, NODE_NONE), end);
    return !g->p.failed;
}

static bool tool_rule(Grammar *g, Schemas *s, const GrammarTool *tool, NodeId *rule, ds4_err *err)
{
    char what[160];
    NodeId parameters = NODE_NONE;
    snprintf(what, sizeof what, "tool \"%.*s\"", STR_ARG(tool->name));
    bool ok = tool->custom
                  ? custom_parameters(g, s, tool, &parameters, err)
                  : schemas_parameters(s, tool->parameters, tool->lenient, what, &parameters);
    if (ok)
        *rule = node_literal(&g->p, tool->name,
                             literal(g, "\">\n", node_call(&g->p, parameters, NODE_RET)));
    return ok;
}

/* One call after the other, up to the closing tag. */
static NodeId block_of(Grammar *g, NodeId tools, bool parallel)
{
    Program *p = &g->p;
    NodeId invoke = literal(g, "<", node_control(p, literal(g, "invoke name=\"", tools)));
    NodeId behind = node_forward(p), call = node_call(p, invoke, behind);
    NodeId end = literal(g, "\n</", node_control(p, literal(g, CLOSER, NODE_RET)));
    node_resolve(p, behind, parallel ? node_either(p, end, literal(g, "\n", call)) : end);
    return literal(g, OPENER, call);
}

static bool build_block(Grammar *g, Schemas *s, const GrammarSpec *spec, ds4_err *err)
{
    Bytes rules = { 0 };
    NodeId one;
    bool ok = true;
    if (g->control.dsml < 0)
        return fail(err, DS4_EINVAL, "grammar: the vocabulary has no control token for tools");
    for (size_t i = 0; ok && i < spec->n_tools; i++) {
        if (spec->only.n && !str_eq(spec->only, spec->tools[i].name))
            continue;
        ok = tool_rule(g, s, &spec->tools[i], &one, err);
        bytes_put(&rules, &one, sizeof one);
    }
    if (ok && !rules.n && !rules.failed)
        ok =
            fail(err, DS4_EINVAL, "grammar: a call is asked for, but tool \"%.*s\" is not declared",
                 STR_ARG(spec->only));
    if (ok)
        g->block = block_of(g, node_alt_bytes(&g->p, &rules, NODE_RET), spec->parallel);
    bytes_release(&rules);
    return ok;
}

/* The form of the text, NODE_NONE: free. */
static bool build_format(Grammar *g, Schemas *s, const GrammarSpec *spec, NodeId *rule,
                         ds4_err *err)
{
    if (spec->schema || spec->json_object)
        return schemas_json(s, spec->schema, "response format", rule);
    if (spec->regex.n)
        return text_regex(g, spec->regex, rule, err);
    return !spec->lark.n || lark_rule(&g->p, spec->lark, rule, err);
}

static bool build_start(Grammar *g, const GrammarSpec *spec, NodeId format, ds4_err *err)
{
    NodeId call = literal(g, "\n\n<", node_control(&g->p, g->block));
    if (spec->calls == CALLS_REQUIRED)
        g->after_thinking = call;
    else if (format != NODE_NONE)
        g->after_thinking = node_either(&g->p, format, call);
    if (!program_finish(&g->p, err))
        return false;
    if ((g->after_thinking != NODE_NONE && !program_possible(&g->p, g->after_thinking)) ||
        (g->block != NODE_NONE && !program_possible(&g->p, g->block)))
        return fail(err, DS4_EINVAL, "grammar: nothing can satisfy it");
    return true;
}

static bool build(Grammar *g, const GrammarSpec *spec, ds4_err *err)
{
    NodeId format = NODE_NONE;
    bool calls = spec->calls == CALLS_REQUIRED || (spec->calls == CALLS_ALLOWED && spec->n_tools);
    bool json = calls || spec->schema || spec->json_object;
    Schemas *s = json && !g->p.failed ? schemas_new(&g->p, err) : NULL;
    bool ok = !g->p.failed && (s || !json) && (!calls || build_block(g, s, spec, err)) &&
              build_format(g, s, spec, &format, err) && build_start(g, spec, format, err);
    schemas_free(s);
    return ok;
}

/* ---- masks of free text ---------------------------------------------------------------------- */

static void clear(uint32_t *mask, int32_t id)
{
    if (id >= 0)
        mask[id / 32] &= ~(1u << (id % 32));
}

static void set(uint32_t *mask, int32_t id)
{
    if (id >= 0)
        mask[id / 32] |= 1u << (id % 32);
}

/* All tokens but the ends of an answer, or but the markup of tools, or both. */
static bool mask_without(const Grammar *g, bool ends, bool calls, uint32_t **out)
{
    if (!ends && !calls)
        return true;
    uint32_t *mask = *out = calloc(g->trie->words, sizeof *mask);
    if (!mask)
        return false;
    for (int32_t id = 0; id < vocab_size(g->v); id++)
        set(mask, id);
    const Controls *c = &g->control;
    const int32_t closing[] = { c->eos, c->bos, c->user, c->assistant };
    for (size_t i = 0; ends && i < COUNT(closing); i++)
        clear(mask, closing[i]);
    if (calls)
        clear(mask, c->dsml);
    return true;
}

static bool make_masks(Grammar *g, ds4_err *err)
{
    g->over_mask = calloc(g->trie->words + 1, sizeof *g->over_mask);
    if (g->over_mask &&
        mask_without(g, g->after_thinking != NODE_NONE, g->no_calls, &g->thinking_mask) &&
        mask_without(g, false, g->no_calls, &g->free_mask))
        return true;
    return fail(err, DS4_ENOMEM, "grammar: no memory for masks");
}

/* ---- running ------------------------------------------------------------------------------------- */

/* What comes when thinking is over, or at once without it. */
static void begin_answer(GrammarRun *r)
{
    Grammar *g = r->g;
    r->phase = g->after_thinking == NODE_NONE ? PHASE_FREE : PHASE_HELD;
    r->set = r->phase == PHASE_HELD ? automaton_start(g->a, g->after_thinking) : SET_DEAD;
    r->opening = false;
    r->opened = -1;
}

GrammarRun *grammar_start(Grammar *g, ds4_err *err)
{
    GrammarRun *r = calloc(1, sizeof *r);
    if (r && automaton_pin(g->a, &r->set)) {
        r->g = g;
        begin_answer(r);
        if (g->first == PHASE_THINKING)
            r->phase = PHASE_THINKING;
        return r;
    }
    free(r);
    fail(err, DS4_ENOMEM, "grammar: no memory");
    return NULL;
}

void grammar_end(GrammarRun *r)
{
    if (!r)
        return;
    automaton_unpin(r->g->a, &r->set);
    free(r);
}

bool grammar_complete(const GrammarRun *r)
{
    switch (r->phase) {
    case PHASE_THINKING: return r->g->after_thinking == NODE_NONE;
    case PHASE_HELD: return automaton_complete(r->g->a, r->set);
    default: return true;
    }
}

bool grammar_constrains(const GrammarRun *r) { return r->phase == PHASE_HELD; }

bool grammar_failed(const GrammarRun *r) { return automaton_failed(r->g->a); }

const uint32_t *grammar_mask(GrammarRun *r)
{
    Grammar *g = r->g;
    if (r->phase == PHASE_THINKING)
        return g->thinking_mask;
    if (r->phase == PHASE_FREE)
        return g->free_mask;
    if (r->phase == PHASE_OVER)
        return g->over_mask;
    automaton_tidy(g->a);
    uint32_t *mask = automaton_mask(g->a, r->set);
    if (!mask)
        return g->over_mask;
    if (automaton_complete(g->a, r->set))
        set(mask, g->control.eos);
    if (automaton_step(g->a, r->set, SYMBOL_CONTROL) != SET_DEAD)
        set(mask, g->control.dsml);
    return mask;
}

static bool held_bytes(GrammarRun *r, Str s)
{
    SetId at = r->set;
    for (size_t i = 0; i < s.n && at != SET_DEAD; i++)
        at = automaton_step(r->g->a, at, (unsigned char)s.p[i]);
    if (at == SET_DEAD)
        return false;
    r->set = at;
    return true;
}

/* Thinking has written all of the opening tag: what follows is a block, unless
 * the rest of the token cannot be. */
static bool enter_block(GrammarRun *r, Str rest)
{
    GrammarRun before = *r;
    r->phase = PHASE_HELD;
    r->set = automaton_start(r->g->a, r->g->block);
    if (held_bytes(r, STR(OPENER)) && held_bytes(r, rest))
        return true;
    *r = before;
    return false;
}

static void free_bytes(GrammarRun *r, Str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (r->opened >= 0)
            r->opened = s.p[i] == OPENER[r->opened] ? r->opened + 1 : -1;
        if (r->opened == (int)sizeof OPENER - 1) {
            r->opened = -1;
            if (enter_block(r, (Str){ s.p + i + 1, s.n - i - 1 }))
                return;
        }
        r->opening = s.p[i] == '<';
    }
}

/* The control token of tools' markup. */
static bool control_token(GrammarRun *r)
{
    Grammar *g = r->g;
    bool opening = r->opening && g->block != NODE_NONE;
    if (r->phase == PHASE_HELD) {
        SetId to = automaton_step(g->a, r->set, SYMBOL_CONTROL);
        r->set = to != SET_DEAD ? to : r->set;
        return to != SET_DEAD;
    }
    if (g->no_calls)
        return false;
    r->opening = false;
    r->opened = opening && r->phase == PHASE_THINKING ? 0 : -1;
    if (opening && r->phase == PHASE_FREE) {
        r->phase = PHASE_HELD;
        r->set = automaton_start(g->a, g->block);
    }
    return true;
}

static bool special_token(GrammarRun *r, int32_t id)
{
    const Controls *c = &r->g->control;
    if (id == c->eos) {
        if (!grammar_complete(r))
            return false;
        r->phase = PHASE_OVER;
        return true;
    }
    if (id == c->dsml)
        return control_token(r);
    if (r->phase == PHASE_HELD)
        return false;
    if (r->phase == PHASE_THINKING && id == c->think_end)
        begin_answer(r);
    r->opening = false;
    r->opened = -1;
    return true;
}

static bool go_on(GrammarRun *r, Str s)
{
    if (r->phase == PHASE_HELD)
        return held_bytes(r, s);
    free_bytes(r, s);
    return true;
}

bool grammar_token(GrammarRun *r, int32_t id)
{
    Str s = vocab_bytes(r->g->v, id);
    automaton_tidy(r->g->a);
    if (r->phase == PHASE_OVER || !s.p || s.n == 0)
        return false;
    return vocab_is_special(r->g->v, id) ? special_token(r, id) : go_on(r, s);
}

bool grammar_bytes(GrammarRun *r, Str bytes)
{
    GrammarRun before = *r;
    Automaton *a = r->g->a;
    const Controls *c = &r->g->control;
    bool ok = automaton_pin(a, &before.set);
    for (size_t i = 0; ok && i < bytes.n;) {
        int32_t id = vocab_special_at(r->g->v, bytes, i);
        bool control = id >= 0 && (id == c->eos || id == c->dsml || id == c->think_end);
        automaton_tidy(a);
        if (r->phase == PHASE_OVER)
            ok = false;
        else
            ok = control ? special_token(r, id) : go_on(r, (Str){ bytes.p + i, 1 });
        i += control ? vocab_bytes(r->g->v, id).n : 1;
    }
    automaton_unpin(a, &before.set);
    if (!ok)
        *r = before;
    return ok;
}
