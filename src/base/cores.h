/* cores.h - how many threads are worth starting here. */
#ifndef CORES_H
#define CORES_H

/* Physical cores that this process may run on, at least 1. On Apple machines
 * the performance cores; on Linux within the affinity mask and the CPU quota
 * of the control group. */
int cores_usable(void);

#endif
