// Sums of products with weights of 8 or 4 bits.

#include "quantised.h"

#include <utility>

namespace {

// The weights of a block are multiplied in columns, a word of weights for every output with a word of
// inputs: STEP columns in one go, which take so many bytes of memory in both formats.
constexpr int STEP = 4, STEP_SIZE = 2 * STEP * LANES;
constexpr int UNROLLED = LANES < 16 ? 1 : 4;  // steps; with few registers more are spilled

struct Bytes {
    static constexpr bool HAS_LEAST = false, HAS_REMAINDERS = false;
    static constexpr int COLUMNS = GROUP / 2;  // of a group

    static Words column(const char* step, int i) {
        return from_bytes((const uint16_t*)step + i * LANES);
    }
    static Ints add(Ints total, Words column, uint32_t inputs) {
        return add_pairs(total, column, inputs);
    }
};

struct Nibbles {
    static constexpr bool HAS_LEAST = true, HAS_REMAINDERS = true;
    static constexpr int COLUMNS = GROUP / 4;

    static Words column(const char* step, int i) {
        return load<Words>(step + i / 2 * 4 * LANES) >> 4 * (i % 2) & 0x0f0f0f0f;
    }
    static Ints add(Ints total, Words column, uint32_t inputs) {
        return add_bytes(total, column, inputs);
    }
};

// Adds the products of a group's weights and inputs to parts[r][b], of row r and block b, and meanwhile
// fetches as many weights from `next`.
template <class Weights, int ROWS, int BLOCKS, int CHAINS>
[[gnu::always_inline]] inline void add_group(const char* weights, size_t block_size,
                                             const uint32_t* inputs, const char* next,
                                             Ints (&parts)[ROWS][BLOCKS][CHAINS]) {
    constexpr int COLUMNS = Weights::COLUMNS, COLUMNS_OF_LINE = 64 * STEP / STEP_SIZE;
#pragma GCC unroll UNROLLED
    for (int first = 0; first < COLUMNS; first += STEP, weights += STEP_SIZE, next += STEP_SIZE)
#pragma GCC unroll 4
        for (int i = 0; i < STEP; i++) {
            Words columns[BLOCKS];
#pragma GCC unroll 4
            for (int b = 0; b < BLOCKS; b++)
                columns[b] = Weights::column(weights + b * block_size, i);
            if (i % COLUMNS_OF_LINE == 0)
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++)
                    __builtin_prefetch(next + b * block_size + i * STEP_SIZE / STEP);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++) {
                    Ints& part = parts[r][b][i % CHAINS];
                    part = Weights::add(part, columns[b], inputs[r * COLUMNS + first + i]);
                }
        }
}

template <int ROWS, int BLOCKS, class Weights>
void sum_tile(const Matrix& matrix, int block, const Operands& rows, int first, int turn, int turns,
              Floats* totals) {
    constexpr int CHAINS = ROWS * BLOCKS < 8 ? 2 : 1;  // an instruction waits for the one before it
    constexpr int GROUP_SIZE = Weights::COLUMNS / STEP * STEP_SIZE;
    const int groups = matrix.inputs / GROUP;
    const size_t block_size = (size_t)groups * GROUP_SIZE;
    const char* panel = (const char*)matrix.weights + block * block_size;
    Floats sums[ROWS][BLOCKS] = {};
    for (int group = 0; group < groups; group++) {
        const size_t place = (size_t)groups * first + group * ROWS;
        const int fetched = (turn * groups + group) / turns;
        const char* weights = panel + (size_t)group * GROUP_SIZE;
        const char* next = panel + BLOCKS * block_size + (size_t)fetched * GROUP_SIZE;
        Ints parts[ROWS][BLOCKS][CHAINS] = {};
        add_group<Weights>(weights, block_size, rows.integers + place * Weights::COLUMNS, next, parts);
        float unit = 1.0f;  // of parts
        bool has_remainders = false;
        for (int r = 0; r < ROWS; r++) has_remainders |= rows.has_remainders[place + r];
        if (Weights::HAS_REMAINDERS && has_remainders) {
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
                for (int b = 0; b < BLOCKS; b++)
#pragma GCC unroll 2
                    for (int c = 0; c < CHAINS; c++) parts[r][b][c] = parts[r][b][c] << 8;
            add_group<Weights>(weights, block_size, rows.remainders + place * Weights::COLUMNS, next,
                               parts);
            unit = 1 / 256.0f;
        }
#pragma GCC unroll 4
        for (int b = 0; b < BLOCKS; b++) {
            const size_t of_block = ((size_t)(block + b) * groups + group) * LANES;
            const size_t of_next = ((size_t)(block + BLOCKS + b) * groups + fetched) * LANES;
            const Floats scale = from_half_precision(matrix.scales + of_block) * unit;
            __builtin_prefetch(matrix.scales + of_next);
            Floats least{};
            if (Weights::HAS_LEAST) {
                least = from_half_precision(matrix.least + of_block);
                __builtin_prefetch(matrix.least + of_next);
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                Ints whole = parts[r][b][0];
                if (CHAINS > 1) whole = whole + parts[r][b][CHAINS - 1];
                Floats part = __builtin_convertvector(whole, Floats) * scale;
                if (Weights::HAS_LEAST) part = least * rows.sums[place + r] + part;
                sums[r][b] = part * rows.scales[place + r] + sums[r][b];
            }
        }
    }
    memcpy(totals, sums, sizeof sums);
}

template <class Weights, int BLOCKS, size_t... ROWS>
constexpr Tiles by_rows(std::index_sequence<ROWS...>) {
    return {sum_tile<ROWS + 1, BLOCKS, Weights>...};
}

template <class Weights, int BLOCKS>
constexpr Tiles TILES = by_rows<Weights, BLOCKS>(std::make_index_sequence<MOST_QUANTISED_ROWS>());

}  // namespace

const Tiles QUANTISED_TILES[2][2] = {{TILES<Bytes, 1>, TILES<Bytes, 2>},
                                     {TILES<Nibbles, 1>, TILES<Nibbles, 2>}};
