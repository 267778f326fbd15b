/* log_writer.h - lines to a terminal or a file by a thread of their own: a terminal that
 * is stopped, or a pipe that nobody reads, keeps nobody else from working. */
#ifndef LOG_WRITER_H
#define LOG_WRITER_H
#include "../base/base.h"

typedef struct LogWriter LogWriter;

/* fd stays the caller's. */
LogWriter *log_writer_open(int fd, ds4_err *err);
/* All of the text or, where more than 1 MiB waits, nothing; then it says later how many
 * were left out. Any thread; it never waits. */
void log_writer_put(LogWriter *w, const char *text, size_t n);
/* Writes what waits, for at most so long. NULL is fine. */
void log_writer_close(LogWriter *w, int milliseconds);

#endif
