/* Shifts the wall clock of programs that load this library, by the number of seconds in a file, which a test may
   change at any time. The timestamps that the kernel gives to files are not shifted. */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long offset(void)
{
    static volatile long long *seconds;
    if (!seconds) {
        int file = open("/var/lib/clock", O_RDONLY | O_CLOEXEC);
        if (file < 0)
            return 0;
        void *map = mmap(0, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
        close(file);
        if (map == MAP_FAILED)
            return 0;
        seconds = map;
    }
    return *seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
