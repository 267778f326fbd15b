/* stream_block.h - one block of tool calls, byte by byte.
 *
 * It is fed characters of valid UTF-8, and of bytes that UTF-8 never has the
 * three that stand for control tokens. The same block is read twice: first
 * looked at, until it is certain that it is one, and then told. */
#ifndef STREAM_BLOCK_H
#define STREAM_BLOCK_H
#include "stream.h"

enum { MARK_DSML = 0xf8, MARK_THINK, MARK_THINK_END };

/* As it is spelled; one byte of s where it is no mark. */
Str mark_text(const unsigned char *c);

enum BlockStep {
    BLOCK_ON,
    BLOCK_SURE, /* a call, as far as it goes, is well formed */
    BLOCK_BAD,  /* this is no block; only while it is looked at */
    BLOCK_END
};

typedef void (*BlockEmit)(void *user, enum StreamKind kind, Str bytes);

enum { BLOCK_DEPTH = 8 }; /* of parameters in parameters */

typedef struct {
    const StreamTools *tools;
    BlockEmit emit; /* NULL: only look */
    void *user;
    bool plain;  /* tags without the control token */
    bool strict; /* marks in values make it no block */

    int state, back; /* back: whose tag is being read */
    bool odd;        /* the opening tag was damaged: the tool must be a known one */
    bool unknown;    /* a call was of no known tool */
    int calls, recovered, dropped;
    Bytes tag, held, value, name, key, wrapped;
    int type;                 /* of the value */
    bool begun;               /* the value's first character was seen */
    bool custom, told;        /* the call: its kind; its beginning was told */
    int members[BLOCK_DEPTH]; /* of the arguments, and of objects in them */
    int depth;
    bool wrap_text; /* the attribute of wrapped */
    bool failed;
} Block;

/* Zero is a released block; start may be called again. Bytes follow that come
 * after "<" and the mark, or in the plain form after the whole opening tag. */
void block_start(Block *b, bool plain, bool strict, BlockEmit emit);
enum BlockStep block_byte(Block *b, unsigned char c);
bool block_between_calls(const Block *b);
bool block_in_value(const Block *b);
/* As far as it goes, its opening tag is as it should be. */
bool block_unharmed(const Block *b);
void block_release(Block *b);

#endif
