// SPDX-License-Identifier: Apache-2.0
// The symbols that TensorRT's Python bindings want of libnvinfer and its companions. Makers give nothing.
#define SYMBOL(name) void *name(void) { return 0; }
SYMBOL(createInferBuilder_INTERNAL)
SYMBOL(createInferRefitter_INTERNAL)
SYMBOL(createInferRuntime_INTERNAL)
SYMBOL(createNvOnnxParser_INTERNAL)
SYMBOL(createNvOnnxParserRefitter_INTERNAL)
SYMBOL(getBuilderPluginRegistry)
SYMBOL(getNvOnnxParserVersion)
SYMBOL(getPluginRegistry)
SYMBOL(initLibNvInferPlugins)
// 8.x: parsers of formats that nobody uses any more
SYMBOL(_ZN11nvuffparser15createUffParserEv)
SYMBOL(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
SYMBOL(_ZN14nvcaffeparser117createCaffeParserEv)
SYMBOL(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
