/* recall.h - what was sampled, kept to be replayed exactly.
 *
 * Clients send their whole conversation again, as JSON that was made from what
 * the model sampled. Rendered anew it may come out as other tokens (other
 * spaces, other splits, hidden reasoning), and then the KV state is of no use
 * from there on. So the sampled tokens are kept, and put back where the client
 * shows the same text and the same calls. All functions may be called by any
 * thread. */
#ifndef RECALL_H
#define RECALL_H
#include "turn.h"
#include "../store/store.h"

typedef struct Recall Recall;

/* Bounds, of which each makes the answers longest unused be forgotten: of call
 * ids (an answer without calls counts as one) and of bytes. 0: 100,000 and 256 MiB. */
Recall *recall_new(size_t max_entries, size_t max_bytes, ds4_err *err);
void recall_free(Recall *r);

/* Answers of earlier processes with the store's directory are known from now on, by
 * their handles, too, and those to come are kept there: at most so many bytes of them.
 * Before anything else is asked of r. *count: answers that came back, of this
 * vocabulary. False: it has no part of this, and goes on in memory alone. The store is
 * to be closed after the last call. */
bool recall_persist(Recall *r, Store *s, const ds4_vocab *v, uint64_t max_bytes, size_t *count,
                    ds4_err *err);

/* A fresh opaque name for an answer, with its terminator: what is given out as
 * signature and encrypted_content. Another process' handles are not taken for
 * ours, unless both keep theirs in one directory (recall_persist). Empty where the
 * system gives no random bytes. */
enum { RECALL_HANDLE = 48 };
void recall_handle(Recall *r, char out[RECALL_HANDLE]);

/* An answer as the client was shown it, and its reasoning also where that was
 * hidden: calls with the ids that were sent, names as the model sees them,
 * arguments as the text of a JSON object (of a custom tool {"input": "..."}).
 * ids as ChatMessage.ids wants them, nothing after what was shown. */
typedef struct {
    const char *handle; /* NULL or empty: none was sent */
    const int32_t *ids;
    size_t n_ids;
    Str reasoning, content;
    const ChatCall *calls;
    size_t n_calls;
} Sampled;

/* Keeps copies; t is the request that was answered, best after recall_apply, which has
 * done the part that grows with the conversation. False: not kept, since t's
 * prompt is no conversation or ends within an answer (which will come back as
 * one with it), nothing was sampled, it is larger than the bound, or there is no
 * memory. */
bool recall_keep(Recall *r, const Turn *t, const Sampled *s);

/* Messages of assistants by how they were found. edited: an answer is known by
 * its handle, its calls or its text, but what the client shows differs.
 * forgotten: the handle is ours, and nothing is kept under it any more. */
typedef struct {
    size_t by_handle, by_call, by_text, edited, forgotten;
} RecallCount;

/* Gives the assistants' messages of t their ids, of t's arena, where what was
 * sampled is known, and the reasoning that the client left out. *count is set. A
 * message that is not known, or was edited, stays as it is. */
void recall_apply(Recall *r, Turn *t, RecallCount *count);

#endif
