"""Static QDQ: activations and weights in integers whose scales were calibrated, as NPUs want them.

Every tensor between two operators is rounded by a pair of QuantizeLinear and DequantizeLinear, whose scale comes from
what the tensor held on calibration data; an NPU's compiler fuses the pairs into operators of integers. The pairs and
the calibration are those of `onnxruntime.quantization`, with the settings that it has for QNN. What is done here:

- Recurrent nodes become plain operations for every position: no NPU takes RNN, GRU or LSTM everywhere, and those that
  take LSTM and GRU unroll them as well.
- Weights are rounded as everywhere in this package, and given to the quantizer with their scales.
- The range of scores in front of a Softmax leaves out what masks them: -1e4 in it would leave nothing for the rest.
- Operators that move numbers (Reshape, Gather, Concat ...) are in integers if a neighbour is.
"""
