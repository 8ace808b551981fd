// A photo to its mask with a folder that segslim deployed with export.preprocess=true, by OpenVINO; no Python.
//
//     cmake -S . -B build -DOpenVINO_DIR="$(python -c 'from openvino.utils import get_cmake_path as path; print(path())')"
//     cmake --build build
//     build/predict FOLDER photo.ppm mask.pgm [OTHER_PHOTO.ppm OTHER_MASK.pgm ...]
//
// Photos are binary PPM (convert photo.jpg photo.ppm), masks PGM with the class of each pixel. All that is done to a
// photo is in FOLDER/photo.onnx: put what reads your camera in place of read_photo, and what uses classes in place of
// write_mask. With OpenCV, export.preprocess=bgr takes a cv::Mat's data as it is.

#include <openvino/openvino.hpp>

#include <chrono>
#include <exception>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct Photo {
    size_t width = 0, height = 0;
    std::vector<uint8_t> pixels;  // rows of red, green, blue
};

Photo read_photo(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    file >> kind;
    std::vector<size_t> numbers;
    while (file && numbers.size() < 3) {
        file >> std::ws;
        if (file.peek() == '#') {  // a comment, to the end of its line
            std::string comment;
            std::getline(file, comment);
            continue;
        }
        size_t number = 0;
        if (file >> number) numbers.push_back(number);
    }
    file.get();  // the one blank before the pixels
    if (!file || kind != "P6" || numbers[2] != 255 || numbers[0] == 0 || numbers[1] == 0 ||
        numbers[0] > 65535 || numbers[1] > 65535)
        throw std::runtime_error(path + " is no binary PPM of 8 bits: convert it, as in `convert photo.jpg photo.ppm`");
    Photo photo{numbers[0], numbers[1], std::vector<uint8_t>(numbers[0] * numbers[1] * 3)};
    file.read(reinterpret_cast<char*>(photo.pixels.data()), static_cast<std::streamsize>(photo.pixels.size()));
    if (!file) throw std::runtime_error(path + " ends before its last pixel");
    return photo;
}

void write_mask(const std::string& path, const uint8_t* classes, size_t width, size_t height) {
    std::ofstream file(path, std::ios::binary);
    file << "P5\n" << width << " " << height << "\n255\n";
    file.write(reinterpret_cast<const char*>(classes), static_cast<std::streamsize>(width * height));
    if (!file) throw std::runtime_error(path + " cannot be written");
}

int main(int count, char** arguments) try {
    if (count < 4 || count % 2 != 0) {
        std::cerr << "usage: predict FOLDER photo.ppm mask.pgm [OTHER_PHOTO.ppm OTHER_MASK.pgm ...]\n";
        return 2;
    }
    const std::string file = std::string(arguments[1]) + "/photo.onnx";
    if (!std::ifstream(file))
        throw std::runtime_error(file + " does not exist: export with export.preprocess=true");
    ov::Core core;
    // float32, as the network was checked: some processors would else compute in bfloat16
    ov::CompiledModel model = core.compile_model(
        file, "CPU", ov::hint::inference_precision(ov::element::f32),
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
    if (model.output().get_element_type() != ov::element::u8)
        throw std::runtime_error(file + " gives no class ids: export with export.output=argmax");
    ov::InferRequest request = model.create_infer_request();
    for (int at = 2; at < count; at += 2) {
        Photo photo = read_photo(arguments[at]);
        const auto started = std::chrono::steady_clock::now();
        // the tensor looks at the photo's memory, which has to stay until infer() is done
        request.set_input_tensor(ov::Tensor(ov::element::u8, {photo.height, photo.width, 3}, photo.pixels.data()));
        request.infer();
        const ov::Tensor mask = request.get_output_tensor();
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - started;
        write_mask(arguments[at + 1], mask.data<const uint8_t>(), photo.width, photo.height);
        std::cout << arguments[at + 1] << ": " << photo.width << " x " << photo.height << ", " << took.count() << " ms\n";
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
}
