/* lanes_avx2.c - for AVX2. */
#include "lanes.h"

#if defined(__AVX2__)
#define LANES_NAME  "avx2"
#define LANES_TABLE lanes_avx2
#include "lanes_body.h"
#endif
