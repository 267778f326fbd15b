/* rng.h - splitmix64: small, seedable, the same everywhere. Not for secrets. */
#ifndef RNG_H
#define RNG_H
#include <stdint.h>

static inline uint64_t rng_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in [0, 1), 53 bits. */
static inline double rng_unit(uint64_t *state) { return (double)(rng_next(state) >> 11) * 0x1p-53; }

#endif
