/* call_form.h - tool calls compared by what they say, not by how it is spelled. */
#ifndef CALL_FORM_H
#define CALL_FORM_H
#include "turn.h"

/* Appends the call's name and arguments in one form for all spellings of them:
 * members by name, numbers by value, and by nothing beyond a double, which is
 * what JavaScript clients give back. Its id is left out. Two forms are equal as
 * bytes just when the calls are the same; no form is the beginning of another. */
void call_form(Bytes *out, const ChatCall *call);

#endif
