/* Runs the calls of a proof on the board, and tells by its serial port what came out, how deep the stack went and how
   long each call took. It is no part of the program that is measured, and calls none of its functions. */
#include <stddef.h>
#include <stdint.h>

typedef struct {
    void *at;            /* where the program has it */
    const uint32_t *all; /* the values of every call; NULL of an output */
    uint32_t words;      /* of one call */
} Array;

extern const Array test_inputs[], test_outputs[];
extern const uint32_t test_input_count, test_output_count, test_calls;
extern const uint8_t test_resets[];

void program_init(void);
void program_call(void);
void fault(void);
int main(void);

#define UART ((volatile uint32_t *)0x40004000u)
#define TIMER ((volatile uint32_t *)0x40000000u)
#define PAINT 0xC5C5C5C5u
#define PAINTED (16u * 1024u) /* words: no model's stack is deeper */

static void put(char letter)
{
    while (UART[1] & 1u) {
    }
    UART[0] = (uint32_t)letter;
}

static void put_word(char what, uint32_t word)
{
    put(what);
    for (int shift = 28; shift >= 0; shift -= 4) {
        put("0123456789abcdef"[(word >> shift) & 15u]);
    }
    put('\n');
}

static void end(void)
{
    *(volatile uint32_t *)0xE000ED0Cu = 0x05FA0004u; /* a reset, at which the emulator ends */
    for (;;) {
    }
}

void fault(void)
{
    put_word('F', *(volatile uint32_t *)0xE000ED28u);
    end();
}

static uint32_t *stack_pointer(void)
{
    uint32_t *now;
    __asm volatile("mov %0, sp" : "=r"(now));
    return now;
}

/* Calls a function, and gives the bytes of stack that it used and the ticks of the timer that went by. */
static uint32_t __attribute__((noinline)) measured(void (*function)(void), uint32_t *ticks)
{
    uint32_t *const top = stack_pointer();
    uint32_t *low = top - PAINTED;
    for (volatile uint32_t *at = low; at < top; ++at) {
        *at = PAINT;
    }
    const uint32_t before = TIMER[1];
    function();
    *ticks = before - TIMER[1];
    while (low < top && *low == PAINT) {
        ++low;
    }
    return (uint32_t)(top - low) * 4u;
}

static void nothing(void)
{
}

int main(void)
{
    uint32_t ticks, deepest, overhead;
    UART[4] = 16u;
    UART[2] = 1u;
    TIMER[2] = 0xFFFFFFFFu; /* reload */
    TIMER[1] = 0xFFFFFFFFu;
    TIMER[0] = 1u;
    (void)measured(nothing, &overhead);
    deepest = measured(program_init, &ticks);
    for (uint32_t call = 0; call < test_calls; ++call) {
        if (test_resets[call]) {
            program_init();
        }
        for (uint32_t i = 0; i < test_input_count; ++i) {
            const Array *const array = &test_inputs[i];
            for (uint32_t word = 0; word < array->words; ++word) {
                ((volatile uint32_t *)array->at)[word] = array->all[call * array->words + word];
            }
        }
        const uint32_t depth = measured(program_call, &ticks);
        deepest = depth > deepest ? depth : deepest;
        put_word('T', ticks - overhead);
        for (uint32_t i = 0; i < test_output_count; ++i) {
            for (uint32_t word = 0; word < test_outputs[i].words; ++word) {
                put_word('Y', ((const volatile uint32_t *)test_outputs[i].at)[word]);
            }
        }
    }
    put_word('S', deepest);
    end();
    return 0;
}
