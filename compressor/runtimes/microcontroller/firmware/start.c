/* From reset to main, as on any Cortex-M: it is part of the program that is measured. */
#include <stdint.h>

extern uint32_t image_stack, image_data_load, image_data, image_data_end, image_bss, image_bss_end;

int main(void);
void fault(void);
void reset(void);

void reset(void)
{
    uint32_t *to = &image_data;
    const uint32_t *from = &image_data_load;
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* CPACR: the floating-point unit is on */
    __asm volatile("dsb\n\tisb");
    while (to < &image_data_end) {
        *to++ = *from++;
    }
    for (to = &image_bss; to < &image_bss_end; ++to) {
        *to = 0u;
    }
    (void)main();
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &image_stack, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault,
};
