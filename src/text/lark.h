/* lark.h - a subset of Lark's grammars to rules of a program.
 *
 * Rules, terminals, strings, regular expressions, ranges, groups, ? * + ~n ~n..m,
 * aliases, priorities (which change nothing), %ignore, and %import of the common
 * terminals. There is no lexer: terminals are read wherever a rule has them. Templates,
 * %declare, %extend, %override and recursion on the left are refused. */
#ifndef LARK_H
#define LARK_H
#include "program.h"

/* A rule of the texts that `start` derives. */
bool lark_rule(Program *p, Str grammar, NodeId *rule, ds4_err *err);

#endif
