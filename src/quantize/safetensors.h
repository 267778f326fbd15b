/* safetensors.h - checkpoints as they are published: a directory of
 * safetensors files. Spec 9.1.
 *
 * A file is a length, a JSON header and data. Nothing in the header is
 * believed before it is checked: offsets inside the file, shapes that fill
 * their bytes exactly, no two tensors on the same bytes or of one name; of
 * an index, that each tensor is in the file that it says. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H
#include "../base/arena.h"
#include "../base/file.h"

enum StType {
    ST_BOOL,
    ST_U8,
    ST_I8,
    ST_F8_E5M2,
    ST_F8_E4M3,
    ST_F8_E8M0,
    ST_U16,
    ST_I16,
    ST_F16,
    ST_BF16,
    ST_U32,
    ST_I32,
    ST_F32,
    ST_U64,
    ST_I64,
    ST_F64,
    ST_END
};

enum { ST_MAX_DIMS = 8 };

typedef struct {
    Str name;
    int type; /* enum StType */
    int n_dims;
    uint64_t dims[ST_MAX_DIMS]; /* the last one contiguous; unused ones are 1 */
    uint64_t count, bytes;
    uint64_t begin; /* in the data section */
    const unsigned char *data;
} StTensor;

/* One file's tensors, sorted by name. Borrows the bytes. */
typedef struct {
    StTensor *tensor;
    size_t n;
    uint64_t data_offset; /* of the data section in the file */
    Arena arena;
} StFile;

bool st_parse(StFile *f, const void *p, size_t n, ds4_err *err);
void st_release(StFile *f);

const char *st_type_name(int type); /* "BF16" */
int st_type_size(int type);         /* bytes a value */

/* A directory: the shards that model.safetensors.index.json names, else
 * model.safetensors, else every *.safetensors. */
typedef struct {
    Map map;
    StFile file;
    char *name;
} StShard;
typedef struct {
    StShard *shard;
    size_t n_shards;
    const StTensor **tensor; /* of all shards, sorted by name */
    size_t n_tensors;
} Checkpoint;

bool checkpoint_open(Checkpoint *c, const char *dir, ds4_err *err);
void checkpoint_close(Checkpoint *c);
const StTensor *checkpoint_find(const Checkpoint *c, const char *name); /* NULL: none */

#endif
