/* editor.h - lines of input: edited and remembered on a terminal, plain
 * elsewhere. */
#ifndef EDITOR_H
#define EDITOR_H
#include "../base/bytes.h"

typedef struct Editor Editor;

enum EditorEvent { EDITOR_LINE, EDITOR_INTERRUPT, EDITOR_END, EDITOR_FAILED };

Editor *editor_open(const char *prompt, ds4_err *err);
void editor_close(Editor *e); /* NULL is fine */
bool editor_is_terminal(const Editor *e);
/* The next line, without its newline, in *line. A backslash at its end goes on
 * with the next. A Ctrl-C before Enter, or that nobody has taken yet
 * (cli_interrupted), is EDITOR_INTERRUPT; one after Enter is left to the caller.
 * EDITOR_FAILED: *err says why. */
enum EditorEvent editor_line(Editor *e, Bytes *line, ds4_err *err);

#endif
