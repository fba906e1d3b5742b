// The likeliest tokens of rows of logits, in two passes over them: torch's topk and softmax take
// five times as long.
#pragma once

#include "vectors.h"

#include <algorithm>
#include <cmath>
#include <functional>

// The largest numbers, at most `capacity`, the largest first; of equal ones the first.
struct Top {
    int32_t* places;
    float* numbers;
    int capacity, count;

    void add(float number, int place) {
        auto is_behind = [&](int i) {
            return number > numbers[i] || (number == numbers[i] && place < places[i]);
        };
        if (count == capacity && !is_behind(count - 1)) return;
        int i = count < capacity ? count++ : count - 1;
        for (; i > 0 && is_behind(i - 1); i--) {
            numbers[i] = numbers[i - 1];
            places[i] = places[i - 1];
        }
        numbers[i] = number;
        places[i] = place;
    }
};

inline void top_of_row(const float* logits, int size, Top top) {
    constexpr int BLOCKS = 4, COLUMNS = BLOCKS * LANES;
    const int whole = size / COLUMNS * COLUMNS;
    // The largest of every column, of which so many are as large as the last that is looked for.
    Floats largest_of[BLOCKS];
    for (Floats& column : largest_of) column = all(-INFINITY);
    for (int first = 0; first < whole; first += COLUMNS)
        for (int b = 0; b < BLOCKS; b++)
            largest_of[b] = larger(load<Floats>(logits + first + b * LANES), largest_of[b]);
    float columns[COLUMNS], sorted[COLUMNS];
    memcpy(columns, largest_of, sizeof columns);
    memcpy(sorted, largest_of, sizeof sorted);
    const int last = std::min(top.capacity, COLUMNS) - 1;
    std::nth_element(sorted, sorted + last, sorted + COLUMNS, std::greater<float>());
    const float least = top.capacity <= COLUMNS ? sorted[last] : -INFINITY;
    for (int column = 0; column < COLUMNS; column++)
        if (columns[column] >= least)
            for (int i = column; i < whole; i += COLUMNS) top.add(logits[i], i);
    for (int i = whole; i < size; i++) top.add(logits[i], i);
    const float most = top.numbers[0];
    Floats totals{};
    int i = 0;
    for (; i + LANES <= size; i += LANES)
        totals = totals + exponential(load<Floats>(logits + i) - most);
    float total = sum(totals);
    for (; i < size; i++) total += std::exp(logits[i] - most);
    for (int rank = 0; rank < top.count; rank++)
        top.numbers[rank] = std::exp(top.numbers[rank] - most) / total;
}

inline void add_noise(const float* noise, float* logits, int size) {
    int i = 0;
    for (; i + LANES <= size; i += LANES)
        store(logits + i, load<Floats>(logits + i) + load<Floats>(noise + i));
    for (; i < size; i++) logits[i] += noise[i];
}

// Writes the `count` likeliest tokens of every row of logits [num_rows, size] and how likely each
// is, both as [num_rows, count], the likeliest first.
extern "C" void nfox_top(const float* logits, int num_rows, int size, int count, int32_t* tokens,
                         float* probabilities, int num_threads) {
#pragma omp parallel for num_threads(num_threads) if ((int64_t)num_rows * size >= 1 << 14)
    for (int row = 0; row < num_rows; row++)
        top_of_row(logits + (size_t)row * size, size,
                   {tokens + (size_t)row * count, probabilities + (size_t)row * count, count, 0});
}
