/* A libnvidia-ml.so.1 in front of the driver's: it answers for the acted card, and the real one does the rest.
 *
 * CARDSTOCK_ACTED says which card (ActedCard.to_text); without it, every answer is the real one's. The real library is
 * beside this one as libnvidia-ml-real.so.1 and is needed by it (DT_NEEDED): so whatever is asked of this library by
 * dlsym and is not here is found there, and no list of its functions is kept. images/proof/acting/prepare.py
 * compiles it inside the image that it is for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REAL "libnvidia-ml-real.so.1"
/* nvml.h: nvmlReturn_t */
#define SUCCESS 0
#define INSUFFICIENT_SIZE 7
#define FUNCTION_NOT_FOUND 13

struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned int version; unsigned long long total, reserved, free, used; };
struct card { int major, minor; unsigned long long memory; char name[96]; };

static int read_card(struct card *card)
{
    const char *text = getenv("CARDSTOCK_ACTED");
    return text && sscanf(text, "%d.%d;%llu;%*[^;];%*[^;];%*[^;];%*[^;];%*[^;];%95[^\n]",
                          &card->major, &card->minor, &card->memory, card->name) == 4;
}

static void *real(const char *name)
{
    void *library = dlopen(REAL, RTLD_LAZY | RTLD_NOLOAD);
    return library ? dlsym(library, name) : NULL;
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor)
{
    int (*ask)(void *, int *, int *) = real("nvmlDeviceGetCudaComputeCapability");
    int code = ask ? ask(device, major, minor) : FUNCTION_NOT_FOUND;
    struct card card;
    if (code == SUCCESS && read_card(&card)) {
        *major = card.major;
        *minor = card.minor;
    }
    return code;
}

int nvmlDeviceGetName(void *device, char *name, unsigned int length)
{
    int (*ask)(void *, char *, unsigned int) = real("nvmlDeviceGetName");
    struct card card;
    char own[96];
    int code;
    if (!ask)
        return FUNCTION_NOT_FOUND;
    if (!read_card(&card))
        return ask(device, name, length);
    code = ask(device, own, sizeof own); /* a card that is lost has no name */
    if (code == SUCCESS && strlen(card.name) >= length)
        return INSUFFICIENT_SIZE;
    if (code == SUCCESS)
        strcpy(name, card.name);
    return code;
}

static void act(unsigned long long *total, unsigned long long *left, unsigned long long used)
{
    struct card card;
    if (read_card(&card) && card.memory < *total) {
        *total = card.memory;
        *left = used < card.memory ? card.memory - used : 0;
    }
}

int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory)
{
    int (*ask)(void *, struct memory *) = real("nvmlDeviceGetMemoryInfo");
    int code = ask ? ask(device, memory) : FUNCTION_NOT_FOUND;
    if (code == SUCCESS)
        act(&memory->total, &memory->free, memory->used);
    return code;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory_v2 *memory)
{
    int (*ask)(void *, struct memory_v2 *) = real("nvmlDeviceGetMemoryInfo_v2");
    int code = ask ? ask(device, memory) : FUNCTION_NOT_FOUND;
    if (code == SUCCESS)
        act(&memory->total, &memory->free, memory->used + memory->reserved);
    return code;
}
