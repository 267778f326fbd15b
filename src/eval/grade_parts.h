/* grade_parts.h - what the files of the graders share. */
#ifndef GRADE_PARTS_H
#define GRADE_PARTS_H
#include "grade.h"
#include <stdarg.h>

/* Always false. */
bool grade_wrong(char why[GRADE_WHY], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool grade_calls(const Key *key, const Given *given, char why[GRADE_WHY]);

#endif
