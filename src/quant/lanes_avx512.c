/* lanes_avx512.c - for AVX-512. */
#include "lanes.h"

#if defined(__AVX512F__)
#define LANES_NAME  "avx512"
#define LANES_TABLE lanes_avx512
#include "lanes_body.h"
#endif
