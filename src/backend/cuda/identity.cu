/* identity.cu - which GPU it is, whatever number a program sees it under. */
#include "internal.cuh"
#include <stdio.h>

extern "C" bool cuda_identity(int device, char out[40])
{
    cudaDeviceProp prop;
    if (cudaGetDeviceProperties(&prop, device) != cudaSuccess) {
        cudaGetLastError();
        return false;
    }
    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", (unsigned char)prop.uuid.bytes[i]);
    return true;
}
