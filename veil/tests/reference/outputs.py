"""What onnxruntime computes: the numbers that our own executor and tract have to reach.

usage: outputs.py MODEL WIDTH HEIGHT rgb|bgr <PIXELS >OUTPUTS

PIXELS are WIDTH x HEIGHT x 3 bytes, red first. OUTPUTS are, for each output of the model, its length (8 bytes) and its
32-bit floats, all little-endian."""
import struct, sys
import numpy, onnx, onnxruntime

model = onnx.load(sys.argv[1])
width, height = int(sys.argv[2]), int(sys.argv[3])
# Both files declare the size that they were exported with.
for axis, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, height, width)):
    axis.dim_value = size
for output in model.graph.output:
    output.type.tensor_type.ClearField("shape")
del model.graph.value_info[:]
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
pixels = numpy.frombuffer(sys.stdin.buffer.read(), numpy.uint8).reshape(height, width, 3)
if sys.argv[4] == "bgr":
    pixels = pixels[:, :, ::-1]
planes = numpy.ascontiguousarray(pixels.transpose(2, 0, 1)[None]).astype(numpy.float32)
for output in session.run(None, {model.graph.input[0].name: planes}):
    numbers = numpy.ascontiguousarray(output, "<f4")
    sys.stdout.buffer.write(struct.pack("<Q", numbers.size) + numbers.tobytes())
