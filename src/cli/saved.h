/* saved.h - a conversation in a file: its messages, then the session. */
#ifndef SAVED_H
#define SAVED_H
#include "transcript.h"

bool saved_write(const char *path, const Transcript *t, ds4_session *s, ds4_err *err);
/* On failure *t is empty; the session may be, too. */
bool saved_read(const char *path, Transcript *t, ds4_session *s, ds4_err *err);

#endif
