// What heads compute in a step, one operation after the other in one call: most of them are so small
// that to call each by itself takes longer than to compute it.
#pragma once

enum OperationKind { EMBED, NORM, LINEAR, ADD, FORWARD, UNEMBED, TOP };

// Rows of bfloat16 numbers, but for what UNEMBED writes and TOP reads, which are floats.
extern "C" struct Operation {
    int32_t kind;
    int32_t rows;        // 0: as many as the program is run for
    int32_t width;       // of what is embedded, normed, added or looked at
    int32_t activation;  // of LINEAR; none where it is below 0
    int32_t count;       // EMBED: of tokens in a row; TOP: of the likeliest ones
    int32_t given_stride, added_stride, result_stride;  // numbers from row to row
    const void* weights;  // of EMBED [tokens, width]; a norm, a matrix or a decoder
    const void* given;  // of TOP with noise overwritten
    const void* added;  // null for nothing; of TOP where the row of noise is said, null for none
    void* result;
    void* chances;  // TOP: how likely each is
};

inline void run_operation(const Operation& o, int rows, int num_threads) {
    const uint16_t *given = (const uint16_t*)o.given, *added = (const uint16_t*)o.added;
    uint16_t* result = (uint16_t*)o.result;
    switch (o.kind) {
        case EMBED:
            for (int i = 0; i < rows * o.count; i++) {
                const size_t token = ((const int32_t*)o.given)[i];
                memcpy(result + (size_t)i * o.width, (const uint16_t*)o.weights + token * o.width,
                       sizeof(uint16_t) * o.width);
            }
            return;
        case NORM: return nfox_norm((const Norm*)o.weights, given, rows, result);
        case LINEAR:
            return nfox_linear((const Matrix*)o.weights, given, rows, o.activation, added, result,
                               num_threads);
        case ADD:
            for (int row = 0; row < rows; row++)
                for (int i = 0; i < o.width; i += LANES) {
                    Floats sum = widened(given + (size_t)row * o.given_stride + i);
                    if (added) sum = sum + widened(added + (size_t)row * o.added_stride + i);
                    put(result + (size_t)row * o.result_stride + i, sum);
                }
            return;
        case FORWARD:
            return nfox_forward((const Decoder*)o.weights, (const Batch*)o.given, num_threads);
        case UNEMBED:
            return multiply_into((const Matrix*)o.weights, given, rows, (float*)o.result,
                                 o.result_stride, num_threads);
        case TOP:
            if (const float* noise = *(const float* const*)o.added)
                for (int row = 0; row < rows; row++)
                    add_noise(noise, (float*)o.given + (size_t)row * o.width, o.width);
            return nfox_top((const float*)o.given, rows, o.width, o.count, (int32_t*)o.result,
                            (float*)o.chances, num_threads);
    }
}

// Runs operations for so many rows, but where an operation says otherwise.
extern "C" void nfox_run(const Operation* operations, int count, int rows, int num_threads) {
    for (int i = 0; i < count; i++)
        run_operation(operations[i], operations[i].rows ? operations[i].rows : rows, num_threads);
}
