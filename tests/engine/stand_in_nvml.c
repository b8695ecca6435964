/* Stands in for libnvidia-ml.so.1: answers from the file that NVML_ANSWERS names (tests/recorded/nvml/README.md). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CARDS 16
struct card { int failed, major, minor; char uuid[96], name[96]; };
static struct card cards[CARDS];
static int count, init, cuda;
static char driver[80];

int nvmlInitWithFlags(unsigned flags)
{
    const char *path = getenv("NVML_ANSWERS");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    (void)flags;
    if (file == NULL)
        return 999;
    while (fgets(line, sizeof line, file)) {
        struct card *one = &cards[count % CARDS];
        if (sscanf(line, "card %d %d.%d %95s %95[^\n]", &one->failed, &one->major, &one->minor, one->uuid, one->name) == 5)
            count++;
        else if (sscanf(line, "driver %79s", driver) != 1 && sscanf(line, "cuda %d", &cuda) != 1)
            sscanf(line, "init %d", &init);
    }
    fclose(file);
    return init;
}

static int put(const char *text, char *out, unsigned size)
{
    if (strlen(text) >= size)
        return 7;
    strcpy(out, text);
    return text[0] ? 0 : 3;
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) { return put(driver, out, size); }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = cuda; return cuda ? 0 : 3; }
int nvmlDeviceGetCount_v2(unsigned *out) { *out = count; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) { *out = &cards[index]; return cards[index].failed; }
int nvmlDeviceGetName(struct card *one, char *out, unsigned size) { return put(one->name, out, size); }
int nvmlDeviceGetUUID(struct card *one, char *out, unsigned size) { return put(one->uuid, out, size); }
int nvmlDeviceGetCudaComputeCapability(struct card *one, int *major, int *minor)
{
    *major = one->major;
    *minor = one->minor;
    return 0;
}
