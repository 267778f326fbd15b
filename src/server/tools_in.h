/* tools_in.h - what a client declares, as the model is told and held to. */
#ifndef TOOLS_IN_H
#define TOOLS_IN_H
#include "request.h"

/* A tool as its API gives it. */
typedef struct {
    enum ToolKind kind;
    Str name, space;     /* space: of a namespace; empty: none */
    Str description;     /* empty: none */
    Json *parameters;    /* NULL: any object */
    Str grammar, syntax; /* custom only; empty: free text */
    bool deferred, strict;
} ToolGiven;

/* What tools have in all APIs: name, description, strict. */
bool tools_read(Request *r, const Json *tool, ToolGiven *g);
/* Names must be told apart, and be fit to stand in an attribute. */
bool tools_add(Request *r, const ToolGiven *g);
/* By the model's name for it; NULL: there is none. */
Tool *tools_find(const Turn *t, Str name);
/* The name of a tool of a namespace as the model sees it. */
bool tools_full_name(Request *r, Str space, Str name, Str *out);

/* The choice; a named tool must exist, and a required one too. */
bool tools_choose(Request *r, enum ToolChoice choice, Str name);
/* Only the listed names may be called: allowed_tools. */
void tools_bar_all(Turn *t);
bool tools_allow(Request *r, Str name);

/* OpenAI's form of a custom tool's format: {type, grammar: {syntax, definition}},
 * or flat as in Responses. */
bool tools_custom_format(Request *r, const Json *format, ToolGiven *g);

/* The arguments of a custom tool's call, which the model sees as a function of one text. */
void tools_custom_arguments(Str input, Bytes *out);

/* The lines of the prompt's tools block. */
bool tools_lines(Request *r, const Str **lines, size_t *n);
/* <functions>...</functions> for a run of references to tools. False when that
 * would be more than so many bytes. */
bool tools_describe(const Turn *t, const Str *names, size_t n, size_t most, Bytes *out);

#endif
