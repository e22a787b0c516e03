package org.example

class Ship implements Serializable {

  static def push(script, loginId, registry, image) {
    script.docker.withRegistry("https://$registry", loginId) {
      script.sh("docker push $registry/$image")
    }
  }

  static def chart(script, chartLoginId, image) {
    script.withCredentials([
      script.usernamePassword(credentialsId: chartLoginId, usernameVariable: 'who', passwordVariable: 'word')
    ]) {
      script.sh("helm registry login charts.example.com --username ${script.who} --password ${script.word}")
    }
  }

  static def file(script, uploadId) {
    def bindings = [
      script.usernamePassword(credentialsId: uploadId, usernameVariable: 'WHO', passwordVariable: 'STORE_WORD')
    ]
    script.withCredentials(bindings) {
      script.sh('curl -u "$WHO:$STORE_WORD" -T out/app.tgz https://files.example.com/app.tgz')
    }
  }

  static def tag(script, keyId) {
    script.sshagent([keyId]) {
      script.sh('make tag')
    }
  }

  static def publish(script, keyId) {
    script.withCredentials([script.string(credentialsId: keyId, variable: 'NPM_TOKEN')]) {
      script.sh('npm publish')
    }
  }
}
