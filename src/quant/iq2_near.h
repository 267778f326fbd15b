/* iq2_near.h - which tuples of IQ2_XXS's grid are near a tuple of levels.
 *
 * Of the 3^8 tuples of levels only 256 are in the grid. A tuple t = sum of level_j 3^j has a list of
 * near grid tuples, in chunks of 16: those in the two smallest distances, or itself alone. */
#ifndef IQ2_NEAR_H
#define IQ2_NEAR_H
#include <stdint.h>

enum { IQ2_TUPLES = 6561, IQ2_CHUNK = 16, IQ2_CHUNKS = 10327 };

typedef struct {
    uint32_t first[IQ2_TUPLES + 1]; /* chunk */
    /* 3 level_2p + level_2p+1 in bits 4p; 9 in all of them where the list is at its end */
    uint16_t pairs[IQ2_CHUNKS * IQ2_CHUNK];
    uint8_t index[IQ2_CHUNKS * IQ2_CHUNK]; /* in the grid */
    float magnitude[256][8];               /* of a grid tuple: 1, 25/8 or 43/8 */
    uint16_t ternary[256];                 /* sum of 3^j over the bits that are set */
} Iq2Near;

/* Made when it is first asked for. */
const Iq2Near *iq2_near(void);

#endif
