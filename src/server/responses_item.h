/* responses_item.h - the items of an answer, as Responses tells them. */
#ifndef RESPONSES_ITEM_H
#define RESPONSES_ITEM_H
#include "dialect.h"

enum ItemKind {
    ITEM_REASONING,
    ITEM_MESSAGE,
    ITEM_FUNCTION_CALL,
    ITEM_CUSTOM_CALL,
    ITEM_SEARCH_CALL,
    ITEM_SHELL_CALL
};

enum ItemState { ITEM_OPEN, ITEM_DONE, ITEM_CUT };

typedef struct {
    enum ItemKind kind;
    enum ItemState state;
    char id[64];
    char call_id[64];
    Bytes name;       /* as the client sees it */
    const Tool *tool; /* NULL: nobody declared it */
    Bytes text;       /* reasoning, message, arguments or input */
    bool part;        /* the part that the text is in was begun */
    Bytes handle;     /* of reasoning */
} OutputItem;

/* What is told of reasoning: its text as the summary or as it is, its handle. */
typedef struct {
    bool summary, raw, encrypted;
} Telling;

/* The item as it stands. */
void item_write(const OutputItem *it, const Telling *told, Bytes *out);
/* One part of a content or a summary. */
void item_write_part(const char *type, Str text, Bytes *out);
bool item_is_call(const OutputItem *it);
/* What its id begins with. */
const char *item_prefix(enum ItemKind kind);
void item_release(OutputItem *it);

#endif
