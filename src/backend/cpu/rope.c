/* rope.c - rotary positions.
 *
 * Interleaved pairs at the end of a head. The angle is the F32 product of
 * position and an F32 frequency, rounded as the model was trained; cosine and
 * sine of it are exact to F32 at any position. There is no YaRN amplitude. */
#include "cpu_internal.h"
#include "../../ops/rotary.h"

void rope_tables(Cpu *c) { rotary_frequencies(c->be.shape, c->freq[0], c->freq[1]); }

void rope_angles(float *turn, const float *freq, int pairs, int pos)
{
    for (int i = 0; i < pairs; i++) {
        double angle = (double)((float)pos * freq[i]);
        turn[2 * i] = (float)cos(angle);
        turn[2 * i + 1] = (float)sin(angle);
    }
}

void rope_turn(float *tail, const float *turn, int pairs, bool back)
{
    for (int i = 0; i < pairs; i++) {
        float cosine = turn[2 * i], sine = back ? -turn[2 * i + 1] : turn[2 * i + 1];
        float a = tail[2 * i], b = tail[2 * i + 1];
        tail[2 * i] = a * cosine - b * sine;
        tail[2 * i + 1] = a * sine + b * cosine;
    }
}
