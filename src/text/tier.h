/* tier.h - the characters of a tier (dfa.h), byte by byte. */
#ifndef TIER_H
#define TIER_H
#include "dfa.h"

/* 0: between characters; the others: what may follow within one. */
enum { TIER_START, TIER_1, TIER_2, TIER_3, TIER_E0, TIER_ED, TIER_F0, TIER_F4, TIER_E2, TIER_E280 };
enum { TIER_STATES = 10 };

/* The first byte of a character. */
static inline int tier_first(enum Tier tier, unsigned char b)
{
    bool plain = tier == TIER_PLAIN;
    if (b < 0x80)
        return b == 0 || (plain && (b < 0x20 || b == '"' || b == '\\')) ? -1 : TIER_START;
    if (b < 0xc2 || b > 0xf4)
        return -1;
    if (b < 0xe0)
        return TIER_1;
    if (b < 0xf0)
        return b == 0xe0 ? TIER_E0 : b == 0xed ? TIER_ED : plain && b == 0xe2 ? TIER_E2 : TIER_2;
    return b == 0xf0 ? TIER_F0 : b == 0xf4 ? TIER_F4 : TIER_3;
}

/* The state after one more byte, -1: no character of the tier. U+2028 and
 * U+2029 end lines and so are not plain. */
static inline int tier_next(enum Tier tier, int state, unsigned char b)
{
    if (state == TIER_START)
        return tier_first(tier, b);
    if (b < 0x80 || b > 0xbf)
        return -1;
    switch (state) {
    case TIER_1: return TIER_START;
    case TIER_2: return TIER_1;
    case TIER_3: return TIER_2;
    case TIER_E0: return b >= 0xa0 ? TIER_1 : -1;
    case TIER_ED: return b < 0xa0 ? TIER_1 : -1;
    case TIER_F0: return b >= 0x90 ? TIER_2 : -1;
    case TIER_F4: return b < 0x90 ? TIER_2 : -1;
    case TIER_E2: return b == 0x80 ? TIER_E280 : TIER_1;
    default: return b == 0xa8 || b == 0xa9 ? -1 : TIER_START;
    }
}

#endif
