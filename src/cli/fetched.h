/* fetched.h - where fetched models are kept, and which was the last.
 *
 * Models lie in $XDG_DATA_HOME/ds4, else ~/.local/share/ds4, and beside them a file
 * "last" with the path of the one fetched last: a default model. */
#ifndef FETCHED_H
#define FETCHED_H
#include "../base/base.h"

enum { FETCHED_PATH = 1024 };

/* False where neither variable names a folder. */
bool fetched_folder(char out[FETCHED_PATH]);
bool fetched_remember(const char *path, ds4_err *err);
/* False where there is none, or its file has gone. */
bool fetched_last(char out[FETCHED_PATH]);
/* The URL of a mirror in $XDG_CONFIG_HOME/ds4/mirror, else ~/.config/ds4/mirror; the file's
 * name in `from`, too. */
bool fetched_mirror(char out[FETCHED_PATH], char from[FETCHED_PATH]);

#endif
