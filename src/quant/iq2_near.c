/* iq2_near.c - making the lists. */
#include "iq2_near.h"
#include "iq2xxs_grid.h"
#include <assert.h>
#include <pthread.h>
#include <string.h>

static Iq2Near near; /* made once, then only read */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int level(int g, int j) { return (int)(iq2xxs_grid[g] >> 8 * j & 255) / 20; }

static int distance(const int *t, int g)
{
    int sum = 0;
    for (int j = 0; j < 8; j++)
        sum += (t[j] - level(g, j)) * (t[j] - level(g, j));
    return sum;
}

/* The grid tuples in the two smallest distances from t, or t itself. Returns how many. */
static uint32_t find(const int *t, uint8_t list[256])
{
    int d[256], first = 255, second = 255;
    for (int g = 0; g < 256; g++) {
        d[g] = distance(t, g);
        if (d[g] < first) {
            second = first;
            first = d[g];
        } else if (d[g] > first && d[g] < second) {
            second = d[g];
        }
    }
    uint32_t n = 0;
    for (int g = 0; g < 256; g++)
        if (d[g] == first || (first > 0 && d[g] == second))
            list[n++] = (uint8_t)g;
    return n;
}

static uint16_t pairs_of(int g)
{
    int v = 0;
    for (int p = 0; p < 4; p++)
        v |= (3 * level(g, 2 * p) + level(g, 2 * p + 1)) << 4 * p;
    return (uint16_t)v;
}

static void put_list(uint32_t t, const uint8_t *list, uint32_t n)
{
    const uint32_t chunks = (n + IQ2_CHUNK - 1) / IQ2_CHUNK, at = near.first[t] * IQ2_CHUNK;
    near.first[t + 1] = near.first[t] + chunks;
    assert(near.first[t + 1] <= IQ2_CHUNKS);
    for (uint32_t i = 0; i < chunks * IQ2_CHUNK; i++) {
        near.pairs[at + i] = i < n ? pairs_of(list[i]) : 0x9999;
        near.index[at + i] = i < n ? list[i] : 0;
    }
}

static void make(void)
{
    static const float magnitude[3] = { 1, 25 / 8.0f, 43 / 8.0f };
    for (int g = 0; g < 256; g++)
        for (int j = 0; j < 8; j++)
            near.magnitude[g][j] = magnitude[level(g, j)];
    for (int i = 0; i < 256; i++)
        for (int j = 0, power = 1; j < 8; j++, power *= 3)
            near.ternary[i] = (uint16_t)(near.ternary[i] + (i >> j & 1) * power);
    for (uint32_t t = 0; t < IQ2_TUPLES; t++) {
        int levels[8];
        uint8_t list[256];
        for (uint32_t j = 0, rest = t; j < 8; j++, rest /= 3)
            levels[j] = (int)(rest % 3);
        put_list(t, list, find(levels, list));
    }
    assert(near.first[IQ2_TUPLES] == IQ2_CHUNKS);
}

const Iq2Near *iq2_near(void)
{
    pthread_once(&once, make);
    return &near;
}
