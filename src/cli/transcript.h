/* transcript.h - the messages of a conversation, owned. */
#ifndef TRANSCRIPT_H
#define TRANSCRIPT_H
#include "../text/chat.h"

typedef struct {
    ChatMessage *m;
    size_t n, cap;
} Transcript;

bool transcript_add(Transcript *t, int role, Str content, Str reasoning, ds4_err *err);
void transcript_drop_last(Transcript *t);
/* The system message, always the first; an empty text removes it. */
bool transcript_system(Transcript *t, Str text, ds4_err *err);
/* The role of the last message, -1: none. */
int transcript_last_role(const Transcript *t);
void transcript_release(Transcript *t);

/* To bytes and back. A failed parse leaves *t empty. */
void transcript_write(const Transcript *t, Bytes *out);
bool transcript_parse(Transcript *t, Str bytes, ds4_err *err);

#endif
