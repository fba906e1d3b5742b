// The likeliest tokens of rows of logits, in two passes over them: torch's topk and softmax take
// five times as long.
#pragma once

#include "vectors.h"

#include <algorithm>
#include <cmath>

// The largest of at most `capacity` numbers, the largest first; of equal ones the first.
struct Top {
    int32_t* places;
    float* numbers;
    int capacity, count;

    float least() const { return count < capacity ? -INFINITY : numbers[count - 1]; }

    void add(float number, int place) {
        if (count == capacity && !(number > numbers[count - 1])) return;
        int i = count < capacity ? count++ : count - 1;
        for (; i > 0 && number > numbers[i - 1]; i--) {
            numbers[i] = numbers[i - 1];
            places[i] = places[i - 1];
        }
        numbers[i] = number;
        places[i] = place;
    }
};

inline void top_of_row(const float* logits, int size, Top top) {
    constexpr int STRIDE = 4 * LANES;
    const int whole = size / STRIDE * STRIDE;
    for (int first = 0; first < whole; first += STRIDE) {
        const float* part = logits + first;
        const Floats most = larger(larger(load<Floats>(part), load<Floats>(part + LANES)),
                                   larger(load<Floats>(part + 2 * LANES),
                                          load<Floats>(part + 3 * LANES)));
        if (top.count == top.capacity && !(largest(most) > top.least())) continue;
        for (int i = 0; i < STRIDE; i++) top.add(part[i], first + i);
    }
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

// Writes the `count` likeliest tokens of every row of logits [num_rows, size] and how likely each
// is, both as [num_rows, count], the likeliest first.
extern "C" void nfox_top(const float* logits, int num_rows, int size, int count, int32_t* tokens,
                         float* probabilities, int num_threads) {
#pragma omp parallel for num_threads(num_threads)
    for (int row = 0; row < num_rows; row++)
        top_of_row(logits + (size_t)row * size, size,
                   {tokens + (size_t)row * count, probabilities + (size_t)row * count, count, 0});
}
