/* program.h - a grammar as a program for the pushdown automaton.
 *
 * Nodes are steps; each names the node that follows it, so a sequence is built
 * from its end. A rule is a node that ends in RET, and may be called. What a
 * node needs to remember (how far a literal has been read, which members an
 * object has) lies in the frame that runs it, not in the node. */
#ifndef PROGRAM_H
#define PROGRAM_H
#include "../base/arena.h"
#include "../base/bytes.h"
#include "dfa.h"

typedef uint32_t NodeId;
enum { NODE_NONE, NODE_RET, NODE_END, NODE_FIRST }; /* admits nothing; returns; the whole is read */
#define NO_LIMIT UINT32_MAX

enum NodeKind {
    N_NONE,
    N_RET,
    N_END,
    N_LITERAL, /* bytes */
    N_DFA,     /* what an automaton accepts */
    N_CHARS,   /* the same, of min..max characters; accepting states lie between them */
    N_CONTROL, /* the control token of tools' markup */
    N_ALT,     /* any of several nodes */
    N_CALL,    /* a rule */
    N_MEMBERS,
    N_KEY, /* of an object: after a member, and before one */
    N_ITEMS,
    N_ITEM /* of an array: after an item, and before one */
};

typedef struct {
    uint8_t kind;
    NodeId next;
    uint32_t a, n; /* into bytes, dfas, lists, objects or arrays; the rule called */
    uint32_t min, max;
} Node;

/* A list of members, each at most once. Up to OBJECT_SET of them come in any
 * order, more of them in the order given. */
enum { OBJECT_SET = 64 };
typedef struct {
    const NodeId *member; /* [n] rules */
    const bool *required; /* [n] */
    uint32_t n, n_required;
    NodeId extra;      /* a rule: members of other names, any number; NODE_NONE: none */
    NodeId separator;  /* a rule */
    uint32_t min, max; /* members */
    uint64_t need;     /* the required ones as a set */
} ObjectNode;

/* Items, of which the first n_prefix have rules of their own. */
typedef struct {
    const NodeId *prefix;
    uint32_t n_prefix;
    NodeId item, separator;
    uint32_t min, max;
} ArrayNode;

typedef struct {
    Node *node;
    uint32_t n_nodes, cap_nodes;
    Bytes bytes;
    NodeId *list;
    uint32_t n_list, cap_list;
    Dfa *dfa;
    uint32_t n_dfas, cap_dfas;
    uint64_t dfa_states;
    ObjectNode *object;
    uint32_t n_objects, cap_objects;
    ArrayNode *array;
    uint32_t n_arrays, cap_arrays;
    uint16_t *need; /* [n_nodes] frames to get to the end; NEED_NEVER: impossible */
    Arena arena;    /* members' lists */
    Effort effort;  /* of all that is built here */
    ds4_err *err;   /* of the first failure, while building */
    bool failed;
} Program;

enum { NEED_NEVER = UINT16_MAX };
/* Frames on one stack. JSON takes one a level, and json_read takes 128 levels. */
enum { MAX_FRAMES = 120 };

void program_init(Program *p, ds4_err *err);
void program_release(Program *p);

/* Each gives a node, NODE_NONE when it admits nothing, its `next` is NODE_NONE,
 * or building has failed: the builder asks p->failed once, at the end. */
NodeId node_literal(Program *p, Str bytes, NodeId next);
NodeId node_dfa(Program *p, uint32_t dfa, NodeId next);
NodeId node_chars(Program *p, uint32_t dfa, uint32_t min, uint32_t max, NodeId next);
NodeId node_control(Program *p, NodeId next);
NodeId node_alt(Program *p, const NodeId *of, size_t n, NodeId next);
/* The same, of NodeIds in a buffer; one that had no memory for all fails the program. */
NodeId node_alt_bytes(Program *p, const Bytes *of, NodeId next);
NodeId node_either(Program *p, NodeId a, NodeId b); /* both end in the same place */
NodeId node_call(Program *p, NodeId rule, NodeId next);
NodeId node_object(Program *p, const ObjectNode *o, NodeId next);
NodeId node_array(Program *p, const ArrayNode *a, NodeId next);
/* A rule whose body is not known yet, and its body. */
NodeId node_forward(Program *p);
void node_resolve(Program *p, NodeId forward, NodeId body);
/* Takes the automaton over. */
uint32_t program_dfa(Program *p, Dfa *d);
/* n ids that live as long as the program, NULL: failed. */
NodeId *program_ids(Program *p, const NodeId *ids, size_t n);

/* The work that is left when all is built: what can be completed, and within
 * how many frames; no rule may call itself before it has read anything. */
bool program_finish(Program *p, ds4_err *err);
/* Whether a node can be completed. */
bool program_possible(const Program *p, NodeId start);

#endif
