/* cores.h - how many threads are worth starting here. */
#ifndef CORES_H
#define CORES_H

/* Physical cores that this process may run on, at least 1. On Apple machines
 * the performance cores; on Linux within the affinity mask and the CPU quota
 * of the control group. */
int cores_usable(void);
/* Hardware threads within the affinity mask: so many of ours can run at once. */
int hardware_threads_usable(void);

#endif
