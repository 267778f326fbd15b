/* schema_notation.c - how values are written: JSON's punctuation, and the markup
 * in which a call has its parameters. */
#include "schema_parts.h"

/* ---- JSON --------------------------------------------------------------------------- */

NodeId quoted_rule(Schemas *s, NodeId inside)
{
    return literal(s, "\"", node_call(s->p, inside, literal(s, "\"", NODE_RET)));
}

NodeId braced_rule(Schemas *s, const ObjectNode *o)
{
    return literal(s, "{", node_object(s->p, o, literal(s, "}", NODE_RET)));
}

NodeId bracketed_rule(Schemas *s, const ArrayNode *a)
{
    return literal(s, "[", node_array(s->p, a, literal(s, "]", NODE_RET)));
}

NodeId member_rule(Schemas *s, NodeId key, NodeId value)
{
    return node_call(s->p, key, node_call(s->p, s->colon, node_call(s->p, value, NODE_RET)));
}

/* ---- what all schemas share --------------------------------------------------------- */

static bool make_automata(Schemas *s)
{
    /* A pair of escapes of U+D800..U+DFFF is one character. */
    static const char json[] = "(?:[^\"\\\\\\x00-\\x1f]|\\\\(?:[\"\\\\/bfnrt]|u(?:"
                               "[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}|"
                               "[dD][89abAB][0-9a-fA-F]{2}\\\\u[dD][c-fC-F][0-9a-fA-F]{2})))*";
    Dfa chars = { 0 }, text = { 0 };
    bool ok = text_cut(s, &chars, str_of(json), false) &&
              text_cut(s, &text, STR("[^\\x00]*"), false) && text_without_tag(s, &text);
    if (!ok) {
        dfa_release(&chars);
        dfa_release(&text);
        return false;
    }
    s->json_chars = program_dfa(s->p, &chars);
    s->text_chars = program_dfa(s->p, &text);
    return !s->p->failed;
}

bool schemas_make_shared(Schemas *s)
{
    Program *p = s->p;
    if (p->failed || !make_automata(s))
        return false;
    s->comma = node_either(p, literal(s, ",", NODE_RET), literal(s, ", ", NODE_RET));
    s->colon = node_either(p, literal(s, ":", NODE_RET), literal(s, ": ", NODE_RET));
    NodeId value = node_forward(p), rest = node_forward(p);
    NodeId string = quoted_rule(s, node_dfa(p, s->json_chars, NODE_RET));
    ObjectNode object = { .extra = member_rule(s, string, value),
                          .separator = s->comma,
                          .max = NO_LIMIT };
    ArrayNode array = { .item = value, .separator = s->comma, .max = NO_LIMIT };
    NodeId of[] = { braced_rule(s, &object),       bracketed_rule(s, &array),
                    number_rule(s, &facets_any),   literal(s, "true", NODE_RET),
                    literal(s, "false", NODE_RET), literal(s, "null", NODE_RET) };
    node_resolve(p, rest, node_alt(p, of, COUNT(of), NODE_RET));
    node_resolve(p, value, node_either(p, rest, string));
    s->any[FORM_JSON] = value;
    s->any[FORM_NO_STRING] = rest;
    s->any[FORM_TEXT] = node_dfa(p, s->text_chars, NODE_RET);
    return !p->failed;
}

/* ---- parameters in markup ----------------------------------------------------------- */

/* What follows a parameter's name. */
static NodeId parameter_value(Schemas *s, NodeId text, NodeId json)
{
    Program *p = s->p;
    NodeId end = literal(s, "</", node_control(p, literal(s, "parameter>", NODE_RET)));
    NodeId of[] = { literal(s, "true\">", node_call(p, text, end)),
                    literal(s, "false\">", node_call(p, json, end)) };
    return node_alt(p, of, COUNT(of), NODE_RET);
}

static NodeId parameter_start(Schemas *s, NodeId rest)
{
    return literal(s, "<", node_control(s->p, literal(s, "parameter name=\"", rest)));
}

NodeId schemas_parameter(Schemas *s, Str name, NodeId text, NodeId json)
{
    NodeId rest = literal(s, "\" string=\"", parameter_value(s, text, json));
    return parameter_start(s, node_literal(s->p, name, rest));
}

NodeId parameter_rule(Schemas *s, NodeId key, NodeId text, NodeId json)
{
    NodeId rest = literal(s, "\" string=\"", parameter_value(s, text, json));
    return parameter_start(s, node_call(s->p, key, rest));
}

NodeId parameters_rule(Schemas *s, ObjectNode *o)
{
    NodeId end = literal(s, "\n</", node_control(s->p, literal(s, "invoke>", NODE_RET)));
    o->separator = literal(s, "\n", NODE_RET);
    return node_object(s->p, o, end);
}
